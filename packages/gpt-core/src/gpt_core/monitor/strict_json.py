"""Strict JSON: no NaN or Infinity ever reaches a file, and files appear complete or not at all.

`json.dumps` writes `NaN`, which no other JSON parser accepts. Here a non-finite number becomes `null` and its
name is remembered, so that the reader still learns that the loss was `nan` and not merely missing.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def clean(value: Any, path: str = "") -> tuple[Any, dict[str, str]]:
    """Turn `value` into plain JSON types. Returns (value, {dotted path: "nan" | "inf" | "-inf"}).

    Scalars of torch and numpy become Python numbers, paths and dates strings, dataclasses and mappings dicts.
    Raises TypeError for anything else, naming the place.
    """
    nonfinite: dict[str, str] = {}
    return _clean(value, path, nonfinite), nonfinite


def _clean(value: Any, path: str, nonfinite: dict[str, str]) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)  # float(): numpy.float64 is a float whose repr is not a number
        nonfinite[path] = str(float(value))
        return None
    if isinstance(value, Mapping):
        return {str(k): _clean(v, f"{path}.{k}" if path else str(k), nonfinite) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(v, f"{path}[{i}]", nonfinite) for i, v in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _clean(fields, path, nonfinite)
    if hasattr(value, "tolist"):  # torch and numpy, scalars and arrays
        return _clean(value.tolist(), path, nonfinite)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"cannot write {path or 'value'} as JSON: got {type(value).__name__}")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON text. A mapping with non-finite numbers gets a `nonfinite` entry that names them."""
    cleaned, nonfinite = clean(value)
    if nonfinite and isinstance(cleaned, dict):
        cleaned["nonfinite"] = nonfinite
    return json.dumps(cleaned, indent=indent, ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> Any:
    """Parse strict JSON: `NaN` and `Infinity` are errors (ValueError), as in every other language."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not strict JSON: {name}")


def write_atomic(path: str | Path, text: str) -> None:
    """Write `text` beside `path` and rename: a reader sees the old file or the new one, never half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

"""JSON that every reader accepts: no NaN or Infinity (they become null), and files that appear whole or not at all."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """`value` as JSON types: numbers that are not finite become None, numpy's become Python's, paths text.

    Raises TypeError for what has no place in JSON.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None  # float(): of numpy's, the plain number
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(entry) for entry in value), key=repr)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return plain(value.tolist())
    raise TypeError(f"no JSON for {type(value).__name__}: {value!r}")


def dumps(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Strict JSON text. Half surrogates (text cut inside a character) are escaped: UTF-8 could not hold them."""
    value = plain(value)
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, sort_keys=sort_keys, allow_nan=False)
    return text


def write_json(path: Path, value: Any) -> None:
    """Indented, beside the place and then renamed to it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(aside, "w", encoding="utf-8", newline="\n") as file:
            file.write(dumps(value, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)

"""Questions with exact answers: from a file, or freshly drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from gpt_dag.json_lines import json_lines

FRACTION = re.compile(r"-?[0-9]{1,4000}(/[0-9]{1,4000}|\.[0-9]{1,4000})?")
"""Without an exponent: a few characters could mean more digits than there is memory for."""


@dataclass(frozen=True)
class Item:
    """One expression in words or symbols."""

    text: str
    answer: Fraction
    style: str = "?"
    n_ops: int | None = None


def read_items(path: Path | str) -> list[Item]:
    """The lines of a jsonl file with `english` and `fraction` ("381/100"), and `style` and `n_ops` where there are any.

    Raises ValueError that names the line, OSError where there is no file.
    """
    items = []
    for number, row in json_lines(path):
        try:
            items.append(_item(row))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not items:
        raise ValueError(f"{path} has no expressions; expected lines like {json.dumps(_EXAMPLE)}")
    return items


_EXAMPLE = {"english": "two plus three", "fraction": "5", "style": "cardinal", "n_ops": 1}


def _item(row: object) -> Item:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object like {json.dumps(_EXAMPLE)}, got {json.dumps(row)[:80]}")
    if type(row.get("fraction")) is int:
        row = {**row, "fraction": str(row["fraction"])}
    missing = [key for key in ("english", "fraction") if not isinstance(row.get(key), str)]
    if missing:
        raise ValueError(f"no text under {' and '.join(missing)}; the line has {', '.join(map(str, row)) or 'nothing'}")
    n_ops = row.get("n_ops")
    if n_ops is not None and (type(n_ops) is not int or n_ops < 0):
        raise ValueError(f"n_ops must be a number of operations, got {n_ops!r}")
    style = row.get("style")
    return Item(row["english"], _fraction(row["fraction"]), "?" if style is None else str(style), n_ops)


def _fraction(text: str) -> Fraction:
    if not FRACTION.fullmatch(text):
        raise ValueError(f"fraction must be like 381/100, 3.81 or -5, got {text[:40]!r}")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError(f"the denominator is 0 in {text[:40]!r}") from error


def write_items(path: Path | str, items: Iterable[Item]) -> None:
    """The same format."""
    rows = ({"english": i.text, "style": i.style, "n_ops": i.n_ops, "fraction": str(i.answer)} for i in items)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

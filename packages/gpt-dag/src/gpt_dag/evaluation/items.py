"""Questions with exact answers: from a file, or freshly drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path


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
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(_item(json.loads(line)))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not items:
        raise ValueError(f"{path} has no expressions; expected lines like {json.dumps(_EXAMPLE)}")
    return items


_EXAMPLE = {"english": "two plus three", "fraction": "5", "style": "cardinal", "n_ops": 1}


def _item(row: object) -> Item:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object like {json.dumps(_EXAMPLE)}, got {json.dumps(row)[:80]}")
    missing = [key for key in ("english", "fraction") if not isinstance(row.get(key), str)]
    if missing:
        raise ValueError(f"no text under {' and '.join(missing)}; the line has {', '.join(map(str, row)) or 'nothing'}")
    n_ops = row.get("n_ops")
    if n_ops is not None and (not isinstance(n_ops, int) or n_ops < 0):
        raise ValueError(f"n_ops must be a number of operations, got {n_ops!r}")
    return Item(row["english"], Fraction(row["fraction"]), str(row.get("style", "?")), n_ops)


def write_items(path: Path | str, items: Iterable[Item]) -> None:
    """The same format."""
    rows = ({"english": i.text, "style": i.style, "n_ops": i.n_ops, "fraction": str(i.answer)} for i in items)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

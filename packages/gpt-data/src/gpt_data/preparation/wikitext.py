"""Articles from the rows of WikiText, where a row is a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .tables import Rows

TITLE = re.compile(r" = (?!= ).* = \n?")
"""` = Title = `; sections have more of the signs: ` = = Section = = `."""
BLANK = " \n"
"""How the original file writes an empty line; the hub's rows have it as an empty text."""


def articles(rows: Iterator[Rows]) -> Iterator[Rows]:
    """One text per article, as the original file has it. An article begins with a title between two empty lines."""
    lines: list[str] = []
    weight = 0
    for batch in rows:
        done: list[str] = []
        for line in (row or BLANK for row in batch.values):
            before, title = (lines[-2] if len(lines) > 1 else BLANK), (lines[-1] if lines else "")
            if not line.strip() and TITLE.fullmatch(title) and not before.strip() and any(map(str.strip, lines[:-1])):
                done.append("".join(lines[:-1]))
                lines = [title]
            lines.append(line)
        weight += batch.weight
        if done:
            yield Rows(done, weight)
            weight = 0
    yield Rows(["".join(lines)], weight)

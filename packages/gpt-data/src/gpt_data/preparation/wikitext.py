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
    """One text per article, as the original file has it. An article begins with a title after an empty line."""
    lines: list[str] = []
    after_blank, weight = True, 0
    for batch in rows:
        done: list[str] = []
        for row in batch.values:
            line = row or BLANK
            if after_blank and TITLE.fullmatch(line) and lines:
                done.append("".join(lines))
                lines.clear()
            lines.append(line)
            after_blank = not line.strip()
        weight += batch.weight
        if done:
            yield Rows(done, weight)
            weight = 0
    if lines:
        yield Rows(["".join(lines)], weight)

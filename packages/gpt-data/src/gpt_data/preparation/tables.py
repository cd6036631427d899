"""Tables of text: jsonl and parquet files, whose rows are documents, read in runs of rows with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DatasetError

LINES = (".jsonl", ".ndjson")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
PARQUET = ".parquet"
USUAL_FIELDS = ("text", "content", "document")
"""Columns that are looked for, in this order, if the user names none."""
BATCH_BYTES = 1 << 20
"""Text that is read, and encoded, at once."""


@dataclass(frozen=True)
class Table:
    """One file whose rows are documents."""

    key: str
    """Name that does not depend on the machine: a relative path with forward slashes."""
    path: Path
    split: str | None = None
    """The split that its source assigns; None: the hash of each text decides."""
    field: str | None = None
    """The column that holds the text; None: rows are read whole, as dictionaries, or there are none."""

    def stamp(self) -> tuple[int, int]:
        """Changes when the file does: bytes, and the time of its last change in nanoseconds."""
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Run:
    """Consecutive rows of one table: row groups [start, end) of parquet, bytes [start, end) of lines."""

    table: Table
    start: int
    end: int
    weight: int
    """About how many bytes of input this is."""


@dataclass(frozen=True)
class Rows:
    """What is read at once: texts (None where the column is empty), or dictionaries if the table has no field."""

    values: list[Any]
    weight: int
    """Bytes of input, on the scale of `Run.weight`."""


def is_table(path: Path, also: tuple[str, ...] = ()) -> bool:
    """By its name: .jsonl or .ndjson (also .gz, .zst), .parquet, or an ending in `also`."""
    names = (PARQUET, *LINES, *(line + end for line in LINES for end in COMPRESSED), *also)
    return path.name.lower().endswith(names)


def compression(path: Path) -> str | None:
    """What the lines of a file are packed with."""
    return COMPRESSED.get(path.suffix.lower())


def find_field(table: Table, wanted: str | None) -> Table:
    """The table with the column that holds its text; without one if it has no rows that could tell.

    DatasetError lists the columns if it is not there.
    """
    from . import jsonl, parquet

    columns = parquet.columns(table) if _is_parquet(table) else jsonl.columns(table)
    if columns is None:
        return table
    where = f"{table.path}: has the columns {', '.join(columns) or '(none)'}"
    if wanted is not None and wanted not in columns:
        raise DatasetError(f"{where}, not {wanted!r}. Name the one that holds the text: --text-field.")
    field = wanted or next((name for name in USUAL_FIELDS if name in columns), None)
    if field is None:
        raise DatasetError(f"{where}, none of {', '.join(USUAL_FIELDS)}. Name the one with the text: --text-field.")
    if (kind := columns[field]) not in ("text", "null"):
        raise DatasetError(f"{where}; {field!r} holds {kind}, not text. Name the one with the text: --text-field.")
    return replace(table, field=field)


def cut(table: Table, size: int) -> list[Run]:
    """Runs of about `size` bytes of input that cover every row once; a compressed file is one run."""
    from . import jsonl, parquet

    return parquet.cut(table, size) if _is_parquet(table) else jsonl.cut(table, size)


def rows(run: Run) -> Iterator[Rows]:
    """The rows of a run in order, about BATCH_BYTES at once. DatasetError names the file and the line."""
    from . import jsonl, parquet

    return parquet.rows(run) if _is_parquet(run.table) else jsonl.rows(run)


def cut_with_numbers(table: Table, size: int) -> list[tuple[Run, int]]:
    """Runs with the number of their first row in the table. A file of lines is one run: its rows have no index."""
    from . import parquet

    if not _is_parquet(table):
        return [(run, 0) for run in cut(table, 1 << 62)]
    starts = parquet.row_starts(table)
    return [(run, starts[run.start]) for run in cut(table, size)]


def count_rows(table: Table) -> int:
    """How many rows a table has; reads all of a file of lines, only the footer of parquet."""
    from . import jsonl, parquet

    return parquet.count_rows(table) if _is_parquet(table) else jsonl.count_rows(table)


def pack(runs: Sequence[Run], size: int) -> Iterator[tuple[Run, ...]]:
    """Consecutive runs together, about `size` bytes of input in each group."""
    group: list[Run] = []
    filled = 0
    for run in runs:
        if group and filled + run.weight > size:
            yield tuple(group)
            group, filled = [], 0
        group.append(run)
        filled += run.weight
    if group:
        yield tuple(group)


def _is_parquet(table: Table) -> bool:
    return table.path.suffix.lower() == PARQUET


def needs_pyarrow(path: Path) -> ImportError:
    return ImportError(f"{path}: reading it needs the package pyarrow: pip install 'gpt-data[tables]'")

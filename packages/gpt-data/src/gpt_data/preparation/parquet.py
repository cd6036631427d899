"""Rows from parquet, one row group at a time, one column unless rows are read whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from ..errors import DatasetError
from .tables import BATCH_BYTES, Rows, Run, Table, needs_pyarrow

BUFFER_BYTES = 1 << 20
"""Pages are read through a buffer, so that a row group of any size needs little memory."""
MAX_ROWS = 1 << 13


def columns(table: Table) -> dict[str, str]:
    """Names -> `text` or the type of the column."""
    import pyarrow.types as kinds

    file = _open(table)
    plain = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)

    def kind(field: Any) -> str:
        value = field.type.value_type if kinds.is_dictionary(field.type) else field.type
        return "text" if any(is_kind(value) for is_kind in plain) else str(field.type)

    return {field.name: kind(field) for field in file.schema_arrow}


def cut(table: Table, size: int) -> list[Run]:
    metadata = _open(table).metadata
    weights = [_weight(metadata.row_group(group), table.field) for group in range(metadata.num_row_groups)]
    runs, start, filled = [], 0, 0
    for group, weight in enumerate(weights):
        if filled and filled + weight > size:
            runs.append(Run(table, start, group, filled))
            start, filled = group, 0
        filled += weight
    return [*runs, Run(table, start, len(weights), filled)] if start < len(weights) else runs


def row_starts(table: Table) -> list[int]:
    """The number of the first row of each row group."""
    metadata = _open(table).metadata
    counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    return list(itertools.accumulate(counts, initial=0))


def count_rows(table: Table) -> int:
    return _open(table).metadata.num_rows


def rows(run: Run) -> Iterator[Rows]:
    import pyarrow

    file, field = _open(run.table), run.table.field
    for group in range(run.start, run.end):
        metadata = file.metadata.row_group(group)
        weight, count = _weight(metadata, field), metadata.num_rows
        at_once = max(1, min(MAX_ROWS, count * BATCH_BYTES // max(weight, 1)))
        seen = 0
        try:
            for batch in file.iter_batches(
                at_once, row_groups=[group], columns=None if field is None else [field], use_threads=False
            ):
                values = batch.to_pylist() if field is None else batch.column(0).to_pylist()
                seen += len(values)
                yield Rows(values, weight * len(values) // max(count, 1))
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{run.table.path}: cannot be read in row group {group} ({error}). It is corrupt: fetch it again."
            ) from error
        if seen != count:
            raise DatasetError(f"{run.table.path}: row group {group} has {seen} rows, its footer says {count}.")


def _weight(row_group: Any, field: str | None) -> int:
    """Bytes of a row group before compression, of one column or of all."""
    if field is None:
        return row_group.total_byte_size
    columns = (row_group.column(i) for i in range(row_group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == field)


def _open(table: Table) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise needs_pyarrow(table.path) from error
    try:
        return pyarrow.parquet.ParquetFile(
            table.path, buffer_size=BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(
            f"{table.path}: is no readable parquet file ({error}). It is truncated or corrupt: fetch it again."
        ) from error

"""Rows from JSON lines: plain files by byte ranges, .gz and .zst as one stream."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from ..errors import DatasetError
from .tables import BATCH_BYTES, Rows, Run, Table, compression, needs_pyarrow

MAX_LINE_BYTES = 1 << 28
"""A longer line is a sign of a file that holds something else."""
BUFFER_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some programs of Windows begin a file with; it is no part of the first row."""
ESCAPED_SURROGATES = (b"\\ud", b"\\uD")


def columns(table: Table) -> dict[str, str] | None:
    """Names in the first row -> `text` or the JSON type found there; None if there is no row."""
    with _open(table)[0] as file:
        try:
            line = next((line for line in _lines(file, table, 0, None) if line.strip()), None)
        except OSError as error:
            raise _corrupt(table, error) from error
    if line is None and compression(table.path) and not table.stamp()[0]:
        raise DatasetError(f"{table.path}: has 0 bytes, which is no compressed file. It is truncated: fetch it again.")
    if line is None:
        return None
    row = _parse(line, replace(table, field=None), 0)
    return {name: "text" if isinstance(value, str) else _kind(value) for name, value in row.items()}


def cut(table: Table, size: int) -> list[Run]:
    total = table.stamp()[0]
    if compression(table.path):
        return [Run(table, 0, total, total)]
    starts = [0]
    with open(table.path, "rb") as file:
        while starts[-1] + size < total:
            file.seek(starts[-1] + size)
            _read_line(file, table, file.tell())
            starts.append(file.tell())
    ends = [*starts[1:], total]
    return [Run(table, start, end, end - start) for start, end in zip(starts, ends, strict=True) if start < end]


def count_rows(table: Table) -> int:
    with _open(table)[0] as file:
        try:
            return sum(1 for line in _lines(file, table, 0, None) if line.strip())
        except OSError as error:
            raise _corrupt(table, error) from error


def rows(run: Run) -> Iterator[Rows]:
    table, packed = run.table, compression(run.table.path) is not None
    text, raw = _open(table)
    with text, raw:
        if not packed:
            text.seek(run.start)
        values: list[Any] = []
        position, marked, held = run.start, run.start, 0
        try:
            for line in _lines(text, table, run.start, None if packed else run.end):
                if line.strip():
                    values.append(_parse(line, table, position))
                position, held = position + len(line), held + len(line)
                if held >= BATCH_BYTES:
                    place = raw.tell() if packed else position
                    yield Rows(values, place - marked)
                    values, held, marked = [], 0, place
        except OSError as error:
            raise _corrupt(table, error) from error
        yield Rows(values, (raw.tell() if packed else position) - marked)


def _open(table: Table) -> tuple[BinaryIO, BinaryIO]:
    """The lines, and the file on disk behind them, whose position tells how far reading has come."""
    packed = compression(table.path)
    if packed is None:
        raw = open(table.path, "rb", buffering=BUFFER_BYTES)  # noqa: SIM115  (the caller closes both)
        return raw, raw
    try:
        import pyarrow
    except ImportError as error:
        raise needs_pyarrow(table.path) from error
    raw = open(table.path, "rb", buffering=BUFFER_BYTES)  # noqa: SIM115
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, packed), BUFFER_BYTES), raw


def _lines(file: BinaryIO, table: Table, start: int, end: int | None) -> Iterator[bytes]:
    """Lines from position `start` on, up to the one that ends at `end`."""
    position = start
    while end is None or position < end:
        line = _read_line(file, table, position)
        if not line:
            if end is not None:
                raise DatasetError(f"{table.path}: ends at byte {position}, it had {end}. Run the same command again.")
            return
        position += len(line)
        yield line


def _read_line(file: BinaryIO, table: Table, position: int) -> bytes:
    line = file.readline(MAX_LINE_BYTES)
    if len(line) == MAX_LINE_BYTES:
        raise DatasetError(f"{table.path}: has a line of over {MAX_LINE_BYTES} bytes at byte {position}: no jsonl.")
    return line


def _parse(line: bytes, table: Table, position: int) -> Any:
    """The text of a row, or the row; `position` is where its line begins."""
    if position == 0:
        line = line.removeprefix(BYTE_ORDER_MARK)
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError and JSONDecodeError
        raise DatasetError(f"{_place(table, position)}: is no JSON in UTF-8 ({error}). {_shown(line)}") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{_place(table, position)}: is {_kind(row)}, expected an object. {_shown(line)}")
    if table.field is None:
        return row
    if table.field not in row:
        raise DatasetError(f"{_place(table, position)}: has no {table.field!r}, only {', '.join(row) or 'nothing'}.")
    text = row[table.field]
    if text is not None and not isinstance(text, str):
        raise DatasetError(f"{_place(table, position)}: {table.field!r} is {_kind(text)}, expected text.")
    if text and any(sign in line for sign in ESCAPED_SURROGATES):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DatasetError(f"{_place(table, position)}: holds half a surrogate pair ({error}).") from error
    return text


def _place(table: Table, position: int) -> str:
    """File and line number, counted only when there is something to complain about."""
    number, left = 1, position
    with _open(table)[0] as file:
        while left and (block := file.read(min(BUFFER_BYTES, left))):
            number, left = number + block.count(b"\n"), left - len(block)
    return f"{table.path}, line {number}"


def _shown(line: bytes) -> str:
    shown = line[:80].decode(errors="replace").strip()
    return f"It begins with {shown!r}."


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _corrupt(table: Table, error: OSError) -> DatasetError:
    return DatasetError(
        f"{table.path}: cannot be read to its end ({error}). It is truncated or corrupt: fetch it again."
    )

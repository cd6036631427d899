"""The texts of files and folders, where no dataset is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import DatasetError
from . import tables
from .documents import pieces, scan
from .sources import text_source


def read_texts(paths: Sequence[str | Path], text_field: str | None = None) -> Iterator[str]:
    """All text of files and folders, in order and with bounded memory: documents, or pieces of long ones.

    Rows of jsonl and parquet are documents. Errors: DatasetError names a file that cannot be read.
    """
    source = text_source([Path(path) for path in paths], text_field=text_field)
    for document in source.documents:
        found = scan(document)
        if not found.is_text and source.strict:
            raise DatasetError(f"{document.path}: is not UTF-8 text. Convert it, for example with iconv.")
        if found.bytes:
            yield from (piece.read() for piece in pieces(document, 0, found.bytes))
    for table in source.tables:
        for run in tables.cut(table, tables.BATCH_BYTES):
            yield from (text for rows in tables.rows(run) for text in rows.values if text)

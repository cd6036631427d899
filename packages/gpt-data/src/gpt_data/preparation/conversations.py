"""Conversations of one's own: jsonl or parquet files whose rows are `{"messages": [{"role", "content"}, ...]}`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..chat import smoltalk
from ..errors import DatasetError
from . import tables
from .encode import is_held_out
from .mixture import ChatSource, Task
from .plan import VAL_ONE_IN
from .sources import Request, distinct, named, own_name, texts_description, walk
from .tables import Run, Table


def conversations_source(request: Request) -> ChatSource:
    """The rows of all files, those whose hash says so for validation, at least one of them.

    Raises DatasetError where a path is missing or holds no table, or there is a single row.
    """
    if not request.texts:
        raise DatasetError("chat needs files or folders of conversations: chat FILE.jsonl...")
    found = tuple(_tables(request))
    hashes = [digest for table in found for digest in _digests(table)]
    if len(hashes) < 2:
        raise DatasetError(
            f"{', '.join(own_name(path) for path in request.texts)}: {len(hashes)} conversations, expected at least "
            "two: one to train on and one to validate on."
        )
    one_in = request.options["val_one_in"] or VAL_ONE_IN
    held_out = np.array([is_held_out(digest, one_in) for digest in hashes])
    for few, side in ((held_out, True), (~held_out, False)):  # of a handful all may fall on one side
        if not few.any():
            first = min(range(len(hashes)), key=hashes.__getitem__)
            held_out[[digest == hashes[first] for digest in hashes]] = side
    if held_out.all() or not held_out.any():
        raise DatasetError(f"all {len(hashes)} conversations are the same one, expected at least two different ones.")
    sides = (("train", ~held_out), ("val", held_out))
    tasks = tuple(Task("chat", side, found, np.flatnonzero(rows), smoltalk) for side, rows in sides)
    return ChatSource(texts_description(request.texts), "unknown", tasks, {})


def _tables(request: Request) -> Iterator[Table]:
    for path in distinct(request.texts):
        if path.is_dir():
            inside = named(own_name(path), path, (file for file in walk(path, frozenset()) if tables.is_table(file)))
            files = [(document.key, document.path) for document in inside if document.path is not None]
        else:
            files = [(own_name(path), path)] if path.is_file() and tables.is_table(path) else []
        if not files:
            raise DatasetError(
                f"{path}: no conversations. Give .jsonl or .parquet files, or folders of them, whose rows are "
                '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}.'
            )
        yield from (Table(key, file) for key, file in files)


def _digests(table: Table) -> Iterator[str]:
    """sha256 of what is said in each row, whatever else stands beside it."""
    size = table.stamp()[0]
    runs = tables.cut(table, max(1, size)) if size else []
    for run in runs:
        for row in _rows(run):
            said = json.dumps(row.get("messages", row), sort_keys=True, default=str)
            yield hashlib.sha256(said.encode()).hexdigest()


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for batch in tables.rows(run):
        yield from batch.values

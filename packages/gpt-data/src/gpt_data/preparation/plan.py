"""The plan of a preparation: which text goes into which part. A pure function of the texts and the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import DatasetError
from . import tables
from .documents import Piece, Scan, byte_offset, pieces
from .encode import TextEncoder, is_held_out, split_of
from .tables import BATCH_BYTES, Rows, Run, Table
from .write import Job

PLAN_VERSION = 2
VAL_ONE_IN = 20
"""One document in 20 is held out for validation, chosen by the hash of its content."""
VAL_TAIL = 0.1
"""A single text is cut instead: its last tenth of characters, as nanoGPT does."""
SHARDS_WANTED = 16
MIN_SHARD_BYTES = 1 << 20
MAX_SHARD_BYTES = 256 << 20
Join = Callable[[Iterator[Rows]], Iterator[Rows]]
"""Rows that are parts of documents -> rows that are documents."""


@dataclass(frozen=True)
class Shard:
    """Pieces of files that become one `.bin` file."""

    split: str
    index: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:06d}"

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces)

    def batches(self) -> Iterator[list[Piece]]:
        """Pieces that are encoded at once."""
        group: list[Piece] = []
        filled = 0
        for piece in self.pieces:
            group.append(piece)
            filled += piece.bytes
            if filled >= BATCH_BYTES:
                yield group
                group, filled = [], 0
        if group:
            yield group


@dataclass(frozen=True)
class TablePart:
    """Rows of tables that become at most one `.bin` file per split."""

    index: int
    runs: tuple[Run, ...]
    join: Join | None = None

    @property
    def name(self) -> str:
        return f"table_{self.index:06d}"

    @property
    def split(self) -> str | None:
        return self.runs[0].table.split

    @property
    def bytes(self) -> int:
        return sum(run.weight for run in self.runs)

    def batches(self) -> Iterator[Rows]:
        """Documents that are encoded at once."""
        found = (rows for run in self.runs for rows in tables.rows(run))
        return self.join(found) if self.join else found

    def texts(self, split: str | None, val_one_in: int, limit: int) -> Iterator[str]:
        """Texts of one split (None: of all) in the first `limit` bytes of input."""
        if split not in (None, self.split) and self.split is not None:
            return
        for rows in self.batches():
            for text in filter(None, rows.values):
                if split in (None, self.split) or split_of(text.encode(), val_one_in) == split:
                    yield text
            limit -= rows.weight
            if limit <= 0:
                return


@dataclass(frozen=True)
class Plan:
    """All parts of a dataset, and what they are made of."""

    shards: tuple[Shard, ...]
    scans: tuple[Scan, ...]
    table_parts: tuple[TablePart, ...] = ()
    tables: tuple[Table, ...] = ()
    val_one_in: int = VAL_ONE_IN

    @property
    def separate(self) -> bool:
        """Documents end with an end-of-text id; a single continuous text does not."""
        return len(self.scans) > 1 or bool(self.tables)

    def pieces(self, split: str | None = None) -> Iterator[Piece]:
        for shard in self.shards:
            if split in (None, shard.split):
                yield from shard.pieces

    def texts(self, split: str | None = None, every: int = 1) -> Iterator[str]:
        """The text of a split in no particular units, or about one byte in `every`, evenly taken: whole pieces, and
        the beginning of each part of the tables."""
        for number, piece in enumerate(self.pieces(split)):
            if number % every == 0:
                yield piece.read()
        for part in self.table_parts:
            yield from part.texts(split, self.val_one_in, part.bytes // every)

    def bytes(self, split: str | None = None) -> int:
        """Bytes of input; tables that the hashes split count for each of the splits."""
        parts = [part for part in self.table_parts if split is None or part.split in (None, split)]
        return sum(shard.bytes for shard in self.shards if split in (None, shard.split)) + sum(p.bytes for p in parts)

    def fingerprint(self, options: Mapping[str, object], stamps: Mapping[Table, tuple[int, int]]) -> str:
        """Equal for two runs that would write the same files. Tables count by `stamps`, taken before the plan was made:
        size and time of change."""
        documents = [(s.document.key, s.sha256) for s in self.scans]
        cuts = [(s.name, [(p.start, p.end, p.last) for p in s.pieces]) for s in self.shards]
        files = [(table.key, stamps[table], table.split, table.field) for table in self.tables]
        runs = [[(run.table.key, run.start, run.end) for run in part.runs] for part in self.table_parts]
        content = [PLAN_VERSION, documents, options, cuts, files, runs, self.val_one_in]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class EncodedShard:
    """A shard as a part of the work."""

    shard: Shard
    encoder: TextEncoder

    @property
    def name(self) -> str:
        return self.shard.name

    @property
    def index(self) -> int:
        return self.shard.index

    @property
    def weight(self) -> int:
        return self.shard.bytes

    def jobs(self) -> Iterator[Job]:
        for batch in self.shard.batches():
            yield lambda batch=batch: self.encoder.pieces(self.shard.split, batch)


@dataclass(frozen=True)
class EncodedTable:
    """Rows of tables as a part of the work."""

    part: TablePart
    encoder: TextEncoder

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def index(self) -> int:
        return self.part.index

    @property
    def weight(self) -> int:
        return self.part.bytes

    def jobs(self) -> Iterator[Job]:
        where = self.part.runs[0].table.key
        for rows in self.part.batches():
            yield lambda rows=rows: self.encoder.rows(self.part.split, rows, where)


def make_plan(
    scans: Sequence[Scan],
    shard_bytes: int | None = None,
    found: Sequence[Table] = (),
    join: Join | None = None,
    val_one_in: int = VAL_ONE_IN,
) -> Plan:
    """Split distinct, non-empty documents into train and val, cut both into shards of about `shard_bytes`, and cut
    tables into parts of about that size."""
    whole = [run for table in found for run in tables.cut(table, 1 << 62)]
    total = sum(s.bytes for s in scans) + sum(run.weight for run in whole)
    size = shard_bytes or min(max(total // SHARDS_WANTED, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    if len(scans) == 1 and not found:
        splits = _split_text(scans[0])
    else:
        splits = _split_documents(scans, val_one_in, at_least_one=not found)
    shards = [shard for split, texts in splits.items() for shard in _pack(split, texts, size)]
    first = max((shard.index + 1 for shard in shards), default=0)
    groups = _group_tables(found, size, join is not None)
    parts = (TablePart(first + i, group, join) for i, group in enumerate(groups))
    return Plan(tuple(shards), tuple(scans), tuple(parts), tuple(found), val_one_in)


def _group_tables(found: Sequence[Table], size: int, joined: bool) -> Iterator[tuple[Run, ...]]:
    """Runs of one split together; all of them if documents may begin in one run and end in another."""
    for split in dict.fromkeys(table.split for table in found):
        runs = [run for table in found if table.split == split for run in tables.cut(table, size)]
        yield from [tuple(runs)] if joined and runs else tables.pack(runs, size)


def _split_text(scan: Scan) -> dict[str, list[Piece]]:
    cut = byte_offset(scan.document, int(scan.chars * (1 - VAL_TAIL)))
    if not 0 < cut < scan.bytes:
        raise DatasetError(
            f"{scan.document.key}: {scan.chars} characters are too few to hold out a tenth. Give more text."
        )
    train, val = (0, cut), (cut, scan.bytes)
    return {"train": list(pieces(scan.document, *train)), "val": list(pieces(scan.document, *val))}


def _split_documents(scans: Sequence[Scan], val_one_in: int, at_least_one: bool) -> dict[str, list[Piece]]:
    """at_least_one: no split stays empty, however few the documents are."""
    by_hash = sorted(s.sha256 for s in scans)
    held_out = {h for h in by_hash if is_held_out(h, val_one_in)}
    if at_least_one:
        held_out = held_out or {by_hash[0]}
        if len(held_out) == len(scans):
            held_out.remove(by_hash[-1])
    splits: dict[str, list[Piece]] = {"train": [], "val": []}
    for s in scans:
        splits["val" if s.sha256 in held_out else "train"].extend(pieces(s.document, 0, s.bytes))
    return splits


def _pack(split: str, found: Sequence[Piece], size: int) -> Iterator[Shard]:
    group: list[Piece] = []
    index = filled = 0
    for piece in found:
        if group and filled + piece.bytes > size:
            yield Shard(split, index, tuple(group))
            group, index, filled = [], index + 1, 0
        group.append(piece)
        filled += piece.bytes
    if group:
        yield Shard(split, index, tuple(group))

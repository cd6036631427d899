"""The plan of a preparation: which bytes go into which shard. A pure function of the texts and the options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import DatasetError
from .documents import Piece, Scan, byte_offset, pieces

PLAN_VERSION = 1
VAL_ONE_IN = 20
"""One document in 20 is held out for validation, chosen by the hash of its content."""
VAL_TAIL = 0.1
"""A single text is cut instead: its last tenth of characters, as nanoGPT does."""
SHARDS_WANTED = 16
MIN_SHARD_BYTES = 1 << 20
MAX_SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class Shard:
    """The unit of work: text that becomes one `.bin` file."""

    split: str
    index: int
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        return f"{self.split}_{self.index:06d}"

    @property
    def bytes(self) -> int:
        return sum(piece.bytes for piece in self.pieces)


@dataclass(frozen=True)
class Plan:
    """All shards of a dataset, and the documents that they hold."""

    shards: tuple[Shard, ...]
    scans: tuple[Scan, ...]

    @property
    def separate(self) -> bool:
        """Documents end with an end-of-text id; a single continuous text does not."""
        return len(self.scans) > 1

    @property
    def source_sha256(self) -> str:
        """Digest of the names and contents of all documents, in order."""
        lines = (f"{s.document.key}\0{s.sha256}\n" for s in self.scans)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def pieces(self, split: str | None = None) -> Iterator[Piece]:
        for shard in self.shards:
            if split in (None, shard.split):
                yield from shard.pieces

    def texts(self, split: str | None = None) -> Iterator[str]:
        return (piece.read() for piece in self.pieces(split))

    def bytes(self, split: str | None = None) -> int:
        return sum(piece.bytes for piece in self.pieces(split))

    def fingerprint(self, options: dict[str, object]) -> str:
        """Equal for two runs that would write the same files."""
        cuts = [(s.name, [(p.start, p.end, p.last) for p in s.pieces]) for s in self.shards]
        content = [PLAN_VERSION, self.source_sha256, options, cuts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_plan(scans: Sequence[Scan], shard_bytes: int | None = None) -> Plan:
    """Split distinct, non-empty documents into train and val, and cut both into shards of about `shard_bytes`."""
    total = sum(s.bytes for s in scans)
    size = shard_bytes or min(max(total // SHARDS_WANTED, MIN_SHARD_BYTES), MAX_SHARD_BYTES)
    splits = _split_text(scans[0]) if len(scans) == 1 else _split_documents(scans)
    shards = [shard for split, found in splits.items() for shard in _pack(split, found, size)]
    return Plan(tuple(shards), tuple(scans))


def _split_text(scan: Scan) -> dict[str, list[Piece]]:
    cut = byte_offset(scan.document, int(scan.chars * (1 - VAL_TAIL)))
    if not 0 < cut < scan.bytes:
        raise DatasetError(
            f"{scan.document.key}: {scan.chars} characters are too few to hold out a tenth. Give more text."
        )
    train, val = (0, cut), (cut, scan.bytes)
    return {"train": list(pieces(scan.document, *train)), "val": list(pieces(scan.document, *val))}


def _split_documents(scans: Sequence[Scan]) -> dict[str, list[Piece]]:
    by_hash = sorted(s.sha256 for s in scans)
    held_out = {h for h in by_hash if int(h, 16) % VAL_ONE_IN == 0} or {by_hash[0]}
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
    yield Shard(split, index, tuple(group))

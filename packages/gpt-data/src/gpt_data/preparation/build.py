"""What every build is given, and what it tells about its splits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dataset import ShardInfo, SplitInfo
from ..errors import DatasetError
from .download import file_sha256
from .progress import Progress
from .staging import Staging
from .tables import Table
from .write import Part, PartRecord, file_name

SPLITS = ("train", "val", "test")
Options = dict[str, Any]
Fact = dict[str, Any]
"""A line of `sources.jsonl`: what a file was called and what was in it."""


@dataclass(frozen=True)
class Context:
    """One dataset on its way."""

    recipe: str
    name: str
    staging: Staging
    options: Options
    """What `dataset.json` records: the user's choices and the recipe's own."""
    progress: Progress
    workers: int | None = None
    shard_bytes: int | None = None
    gpt2_bpe: str | Path | None = None


def split_infos(
    parts: Sequence[Part], records: Sequence[PartRecord], counts: Mapping[str, int]
) -> dict[str, SplitInfo]:
    """The splits that have text: the files of all parts, and what was counted."""
    infos = {split: _split_info(split, parts, records, counts) for split in SPLITS}
    return {split: info for split, info in infos.items() if info.tokens}


def _split_info(
    split: str, parts: Sequence[Part], records: Sequence[PartRecord], counts: Mapping[str, int]
) -> SplitInfo:
    shards = []
    for part, record in sorted(zip(parts, records, strict=True), key=lambda pair: pair[0].index):
        if split in record.files:
            ids, mask = record.files[split], record.files.get(f"{split}_mask")
            mask_file = (file_name(f"{split}_mask", part.index), mask.sha256) if mask else (None, None)
            shards.append(ShardInfo(file_name(split, part.index), ids.items, ids.sha256, 0, *mask_file))
    return SplitInfo(
        tokens=sum(shard.tokens for shard in shards),
        bytes=counts.get(f"{split}/bytes", 0),
        documents=counts.get(f"{split}/documents", 0),
        shards=tuple(shards),
    )


def table_facts(tables: Iterable[Table], stamps: Mapping[Table, tuple[int, int]], context: Context) -> list[Fact]:
    """What was in each table, for `sources.jsonl`. DatasetError if one changed since it was stamped."""
    facts = []
    context.progress.phase("hashing", sum(size for size, _ in stamps.values()))
    with ThreadPoolExecutor(context.workers) as pool:
        hashes = pool.map(lambda table: file_sha256(table.path), stamps)
        found = dict(zip(stamps, hashes, strict=True))
    for table in tables:
        size, _ = stamps[table]
        if table.stamp() != stamps[table]:
            raise DatasetError(f"{table.path}: changed while it was being prepared. Run the same command again.")
        context.progress.advance(size)
        facts.append({"document": table.key, "sha256": found[table], "bytes": size, "field": table.field})
    return facts


def write_facts(facts: Sequence[Fact], path: Path) -> str:
    """Write `sources.jsonl`; returns the digest of the names and contents of all files, in order.

    A name that is not UTF-8 is written as Python has it, such a byte as a surrogate (`\\udcff`), and hashed as it is.
    """
    path.write_text("".join(json.dumps(fact) + "\n" for fact in facts), encoding="utf-8")
    lines = "".join(f"{fact['document']}\0{fact['sha256']}\n" for fact in facts)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def total(records: Iterable[PartRecord]) -> Counter[str]:
    """The counts of all parts together."""
    return sum((Counter(record.counts) for record in records), Counter())

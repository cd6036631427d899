"""What every build is given, and what it tells about its splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dataset import ShardInfo, SplitInfo
from .progress import Progress
from .staging import Staging
from .write import Part, PartRecord, file_name

SPLITS = ("train", "val", "test")
Options = dict[str, Any]


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


def split_infos(parts: Sequence[Part], records: Sequence[PartRecord]) -> dict[str, SplitInfo]:
    """The splits that have text, from the records of all parts."""
    infos = {split: _split_info(split, parts, records) for split in SPLITS}
    return {split: info for split, info in infos.items() if info.tokens}


def _split_info(split: str, parts: Sequence[Part], records: Sequence[PartRecord]) -> SplitInfo:
    counts, shards = total(records), []
    for part, record in sorted(zip(parts, records, strict=True), key=lambda pair: pair[0].index):
        if split in record.files:
            ids, mask = record.files[split], record.files.get(f"{split}_mask")
            mask_file = (file_name(f"{split}_mask", part.index), mask.sha256) if mask else (None, None)
            shards.append(ShardInfo(file_name(split, part.index), ids.items, ids.sha256, 0, *mask_file))
    return SplitInfo(
        tokens=sum(shard.tokens for shard in shards),
        bytes=counts[f"{split}/bytes"],
        documents=counts[f"{split}/documents"],
        shards=tuple(shards),
    )


def total(records: Iterable[PartRecord]) -> Counter[str]:
    """The counts of all parts together."""
    return sum((Counter(record.counts) for record in records), Counter())

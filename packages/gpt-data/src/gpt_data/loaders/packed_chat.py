"""Conversations packed into rows with their loss masks: never cropped, never a batch without a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DatasetError
from ..locate import open_dataset
from ..shards import TokenStream
from .documents import BLOCK_TOKENS, Documents, Scanner
from .packing import PackingLoader
from .prefetch import prefetched
from .shard_loader import LossOn
from .splits import Splits

FEW = 500
"""Conversations that are not packed by `pack="auto"` (measured: docs/midtraining.md)."""


def packed_chat(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    buffer: int = 100,
    shuffle: bool = False,
    loss_on: LossOn = "mask",
    pack: bool | Literal["auto"] = True,
    prefetch: int = 2,
) -> Splits:
    """Packed conversations for training and evaluation; other arguments as for `random_windows`.

    buffer: conversations to choose from; with fewer more is padded.
    shuffle: the shards of the training split in another order in every epoch, drawn by `seed`.
    loss_on: `mask` supervises what the dataset's mask counts (all, where it has none), `all` everything but padding.
    pack: False gives each conversation a row of its own. Packed ones see those before them in the row, which nobody
    minds among many; of a few, seen again and again in the same rows, a model learns what followed what. `auto`: a row
    of its own where the training split has fewer than FEW conversations.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    if pack == "auto":
        pack = info.splits["train"].documents >= FEW
    options: dict[str, Any] = {"buffer": buffer, "loss_on": loss_on, "pack": pack}
    train = PackedChat(info, "train", *shape, seed=seed, shuffle=shuffle, **options)
    val = PackedChat(info, "val", *shape, **options)
    test = PackedChat(info, "test", *shape, **options) if "test" in info.splits else None
    notes = () if (too_long := train.too_long()) is None else (too_long,)
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=info, notes=notes)


class PackedChat(PackingLoader):
    """Rows of T+1 tokens that hold whole conversations, each from its BOS on, then BOS as padding that no loss counts.

    Conversations longer than T+1 are cut to their first T+1 tokens. One that has no supervised target in what is kept
    is left out; so every row, and every training batch of every rank, has a target. The others are taken once per
    epoch.
    """

    pads = True
    crop, long_documents = False, "wait"  # none is: they are cut where they are found
    nothing = (
        "no conversation has a target that counts within the context length. Use a longer context_length or "
        "loss_on='all', or prepare the dataset again."
    )

    def __init__(self, *args: Any, pack: bool = True, **kwargs: Any) -> None:
        self.most_documents = None if pack else 1
        super().__init__(*args, **kwargs)
        boundary = self.dataset.boundary
        if boundary is None or boundary.at != "start":
            raise DatasetError(
                f"{self.where}: its documents do not begin with a BOS token, so it holds no conversations. Prepare "
                "conversations (`uv run apps/prepare task_mixture`), or use best_fit."
            )

    def too_long(self) -> str | None:
        """What becomes of conversations longer than a row, judged by the first 2^20 tokens; None if all fit."""
        scanner = self._scanner()
        starts, ends = scanner.scan(0, 0, BLOCK_TOKENS)
        long = int((ends - starts > self.context_length + 1).sum())
        if not long:
            return None
        taken = len(self._scan(scanner)(0, 0, BLOCK_TOKENS).starts)
        first = "" if scanner.shards == 1 and len(self._stream) <= BLOCK_TOKENS else "the first "
        return (
            f"of {first}{len(starts):,} conversations {long:,} are longer than the context of {self.context_length} "
            f"tokens and cut there; {len(starts) - taken:,} are left out: nothing that counts is said before"
        )

    def _scan(self, scanner: Scanner) -> Callable[[int, int, int], Documents]:
        longest = self.context_length + 1
        mask = None if self._mask_stream is None else self.dataset.mask_stream(self.split)  # the thread's own

        def scan(shard: int, position: int, count: int) -> Documents:
            starts, ends = scanner.scan(shard, position, count)
            ends = np.minimum(ends, starts + longest)
            keep = ends - starts > 1  # the first token is no target
            if mask is not None and len(starts):
                keep &= _any_counts(mask, starts + 1, ends)
            return Documents(starts[keep], ends[keep])

        return scan


def _any_counts(mask: TokenStream, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether the mask is set anywhere in each of the ranges, which are in order; of no meaning where one is empty."""
    first, last = int(starts[0]), int(ends[-1])
    values = np.zeros(last - first + 1, np.uint8)  # one more, since every index has to be inside
    mask.read_into(values[:-1], first)
    edges = np.stack([starts, ends], axis=1).ravel() - first
    return np.bitwise_or.reduceat(values, edges)[::2] > 0

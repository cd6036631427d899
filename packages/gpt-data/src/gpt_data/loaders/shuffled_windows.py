"""Sampling without replacement: every epoch is a new random order of windows that tile the split."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..locate import open_dataset
from ..shards import TokenStream
from .base import draw
from .permutation import ROUNDS, Permutation
from .prefetch import prefetched
from .random_windows import TiledWindows
from .shard_loader import IndexedLoader, LossOn
from .splits import Splits

KEYS_STREAM, OFFSETS_STREAM = 1, 2  # of `draw`
CHUNK_ROWS = 4096


def shuffled_windows(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """Windows without replacement for training, the fixed windows of `random_windows` for evaluation.

    Arguments as for `random_windows`.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    train = ShuffledWindows(info, "train", *shape, seed=seed, loss_on=loss_on)
    val = TiledWindows(info, "val", *shape, loss_on=loss_on)
    test = TiledWindows(info, "test", *shape, loss_on=loss_on) if "test" in info.splits else None
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=info)


class ShuffledWindows(IndexedLoader):
    """Touching windows in an order drawn anew every epoch; in an epoch no token is a target twice.

    Of N tokens every epoch takes M = max(1, (N-T) // T) windows from an offset on that it draws below T, so that
    windows do not begin at the same places each time. Left out of an epoch are the tokens before the offset and a
    rest, fewer than 2T together, others in each. Row i of all ranks together is window i % M of epoch i // M, so any
    number of ranks takes the same rows. Memory does not grow with N.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        tokens, length = len(self._stream), self.context_length
        self.windows = max(1, (tokens - length) // length)
        self._offsets = min(length, tokens - self.windows * length)
        self._chunk = lru_cache(maxsize=2)(self._make_chunk)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.windows // self._rows_per_batch)

    def start(self, row: int) -> int:
        """Position of the first token of row number `row` of all ranks together."""
        epoch, index = divmod(row, self.windows)
        chunk, place = divmod(index, CHUNK_ROWS)
        return self._chunk(epoch, chunk)[place]

    def _make_chunk(self, epoch: int, chunk: int) -> list[int]:
        permutation = Permutation(self.windows, draw(self.seed, epoch * ROUNDS, ROUNDS, 2**63, KEYS_STREAM))
        offset = draw(self.seed, epoch, 1, self._offsets, OFFSETS_STREAM)[0]
        first = chunk * CHUNK_ROWS
        indices = np.arange(first, min(first + CHUNK_ROWS, self.windows))
        return (offset + permutation(indices) * self.context_length).tolist()

    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        for row, number in zip(ids, self._numbers(batch).tolist(), strict=True):
            stream.read_into(row, self.start(number))

"""nanoGPT's sampling: every row is a window of T+1 tokens at a random place."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from ..locate import open_dataset
from ..shards import TokenStream
from .base import draw, random_order
from .counted import WholeEpochs
from .prefetch import prefetched
from .shard_loader import IndexedLoader, LossOn
from .splits import Splits


def random_windows(
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
    """Random windows for training, fixed windows that tile the split for evaluation.

    dataset: a name below `data_root` (`stdlib` is prepared on first use) or the path of a dataset folder.
    context_length: T; device_batch_size: B rows per rank and batch.
    data_root: default `$DATA_ROOT`, else `./data`.
    loss_on: `mask` trains on what the dataset's mask counts, where it has one, `all` on every token.
    prefetch: training batches that a thread makes ahead; 0: none, each is made when it is asked for.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    train = RandomWindows(info, "train", *shape, seed=seed, loss_on=loss_on)
    val = TiledWindows(info, "val", *shape, loss_on=loss_on)
    test = TiledWindows(info, "test", *shape, loss_on=loss_on) if "test" in info.splits else None
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=info)


class RandomWindows(IndexedLoader):
    """B windows per batch, starts uniform over the whole split, drawn anew from (seed, rank, batch number).

    An epoch has as many tokens, over all ranks, as the split; which ones is chance.
    """

    @property
    def batches_per_epoch(self) -> int:
        per_step = self.world_size * self.device_batch_size * self.context_length
        return -(-len(self._stream) // per_step)

    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        first = int(self._numbers(batch)[0])
        starts = draw(self.seed, first, len(ids), len(self._stream) - self.context_length)
        for row, start in zip(ids, starts, strict=True):
            stream.read_into(row, start)


class TiledWindows(WholeEpochs, IndexedLoader):
    """Windows that touch, in a fixed shuffled order: in an epoch all ranks together see every token as a target once.

    Left out are the first token and a rest shorter than a window. What fills up the last batch does not count.

    The order does not depend on the seed, and step k of all ranks together takes windows [kWB, (k+1)WB) of it: runs
    with other seeds, and with other numbers of ranks but the same global batch, are evaluated on the same text. The
    first few batches are a fair sample of the split.
    """

    @cached_property
    def _starts(self) -> np.ndarray:
        count = (len(self._stream) - 1) // self.context_length
        return random_order(count, seed=0) * self.context_length

    @property
    def epoch_rows(self) -> int:
        return len(self._starts)

    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        starts = self._starts[self._numbers(batch) % len(self._starts)]
        for row, start in zip(ids, starts.tolist(), strict=True):
            stream.read_into(row, start)

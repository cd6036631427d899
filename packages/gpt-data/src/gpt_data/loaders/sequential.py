"""nanuGPT's `tokenized_data`: every batch is one contiguous run of text, ranks start at different offsets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..locate import open_dataset
from ..shards import TokenStream
from .base import draw
from .prefetch import prefetched
from .shard_loader import IndexedLoader, LossOn
from .splits import Splits


def sequential(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    shuffle: bool = False,
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """Contiguous runs for training and evaluation; arguments as for `random_windows`.

    shuffle: one random start per training batch (not per row) in place of the run that follows the last one.
    """
    info = open_dataset(dataset, data_root)
    shape = (context_length, device_batch_size, rank, world_size)
    train = SequentialRuns(info, "train", *shape, seed=seed, loss_on=loss_on, shuffle=shuffle)
    val = SequentialRuns(info, "val", *shape, loss_on=loss_on)
    test = SequentialRuns(info, "test", *shape, loss_on=loss_on) if "test" in info.splits else None
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=info)


class SequentialRuns(IndexedLoader):
    """A batch is B·T+1 tokens from a cursor on, cut into B rows of T; the cursor wraps at the end of the split.

    With N tokens the split has L = N-T+1 places for a row, rank r of W starts at int((L-1)·r/W), and an epoch is
    ceil(L / (B·T)) batches: nanuGPT's numbers. A rank does not stop where its neighbour began.
    """

    def __init__(self, *args: Any, shuffle: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shuffle = shuffle
        self._places = len(self._stream) - self.context_length + 1
        self._offset = 0 if shuffle else (self._places - 1) * self.rank // self.world_size

    @property
    def batches_per_epoch(self) -> int:
        return -(-self._places // (self.device_batch_size * self.context_length))

    def start(self, batch: int) -> int:
        """Position of the first token of batch number `batch`."""
        if self.shuffle:
            return draw(self.seed, batch, 1, self._places, stream=self.rank)[0]
        return (self._offset + batch * self.device_batch_size * self.context_length) % len(self._stream)

    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        run = np.empty(ids.shape[0] * self.context_length + 1, ids.dtype)
        self._read_wrapped(stream, run, self.start(batch))
        ids[:, :-1] = run[:-1].reshape(len(ids), self.context_length)
        ids[:, -1] = run[self.context_length :: self.context_length]

    def _read_wrapped(self, stream: TokenStream, run: np.ndarray, position: int) -> None:
        while len(run):
            count = min(len(run), len(self._stream) - position)
            stream.read_into(run[:count], position)
            run, position = run[count:], 0

    def identity(self) -> dict[str, Any]:
        layout = {"world_size": self.world_size, "device_batch_size": self.device_batch_size}
        return {**super().identity(), **layout, "shuffle": self.shuffle}

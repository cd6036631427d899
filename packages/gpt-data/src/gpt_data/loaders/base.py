"""What all loaders share: shapes, the cursor, its state, and the check of ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..batch import Batch
from ..dataset import DatasetInfo, check_ids
from ..errors import DatasetError

STATE_VERSION = 2


class Loader:
    """An infinite iterator of batches whose whole state is the number of batches handed out.

    A subclass says in `_fill` which tokens belong to batch k: a pure function of (dataset, seed, rank, k). So a
    state is a few bytes, the same on every rank, and resuming costs nothing. Where row i of all ranks together does not
    depend on how many ranks there are, a run may resume on another number of them.
    B = device_batch_size rows, T = context_length; all ranks together yield world_size·B rows per step.
    """

    def __init__(
        self,
        dataset: DatasetInfo,
        split: str,
        context_length: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        if context_length < 1 or device_batch_size < 1:
            raise ValueError(
                f"context_length and device_batch_size must be at least 1, got {context_length} and "
                f"{device_batch_size}."
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, world_size), got rank {rank} of {world_size}.")
        self.dataset, self.split = dataset, split
        self.context_length, self.device_batch_size = context_length, device_batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self._stream = dataset.stream(split)
        self._batches = 0
        if len(self._stream) <= context_length:
            raise DatasetError(
                f"{dataset.path}: split {split!r} has {len(self._stream)} tokens, a context of {context_length} "
                "needs at least one more than that. Use a shorter context_length or more text."
            )

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each rank hands out in one epoch; the subclass says what an epoch covers."""
        raise NotImplementedError

    def _fill(self, ids: np.ndarray, batch: int) -> None:
        """Write the ids of batch number `batch` into `ids` (B, T+1), of the shards' dtype."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        import torch  # here, so that preparing data does not wait seconds for it

        ids = np.empty((self.device_batch_size, self.context_length + 1), self._stream.dtype)
        self._fill(ids, self._batches)
        check_ids(ids, self.dataset.vocab_size, f"{self.dataset.path}, split {self.split!r}")
        self._batches += 1
        inputs, targets = ids[:, :-1].astype(np.int64), ids[:, 1:].astype(np.int64)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able state that describes the batches already handed out; equal on every rank."""
        return {"rows": self._batches * self._rows_per_batch, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the rows that `state` describes. ValueError if it belongs to another stream."""
        for key, expected in self._identity().items():
            if state.get(key) != expected:
                raise ValueError(
                    f"this loader state has {key} = {state.get(key)!r}, the loader has {expected!r}. "
                    f"Resume with the same {key.replace('_', ' ')}, or start the data from the beginning."
                )
        if not isinstance(rows := state.get("rows"), int) or rows < 0:
            raise ValueError(f"this loader state has rows = {rows!r}, expected how many were handed out.")
        if rows % self._rows_per_batch:
            raise ValueError(
                f"this loader state is after {rows} rows, which {self.world_size} ranks with batches of "
                f"{self.device_batch_size} do not reach. Resume with a number of ranks and a device_batch_size whose "
                "product divides it."
            )
        self._batches = rows // self._rows_per_batch

    @property
    def _rows_per_batch(self) -> int:
        """Rows that all ranks together take at once."""
        return self.world_size * self.device_batch_size

    def _identity(self) -> dict[str, Any]:
        """What makes the stream of rows what it is. A loader whose stream depends on the ranks adds them."""
        return {
            "version": STATE_VERSION,
            "loader": type(self).__name__,
            "dataset": self.dataset.digest,
            "split": self.split,
            "context_length": self.context_length,
            "seed": self.seed,
        }


def draw(seed: int, first: int, count: int, limit: int, stream: int = 0) -> list[int]:
    """Numbers `first` to `first + count - 1` of an endless sequence of random integers in [0, limit).

    The sequence is a function of (seed, stream) alone. Counter-based (Philox 4x64, four words per count), so any part
    of it is as near as the start. Raw words modulo `limit` keep the numbers equal across numpy versions, which
    `Generator` does not promise; the bias is below limit / 2^64.
    """
    key, counter = np.array([seed % 2**64, stream], np.uint64), np.array([first // 4, 0, 0, 0], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(first % 4 + count)[first % 4 :]
    return (words % np.uint64(limit)).tolist()

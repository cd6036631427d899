"""What all loaders share: an endless iterator of batches, and a state that says to which stream it belongs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..batch import Batch
from ..dataset import check_ids

STATE_VERSION = 3
IGNORED = -1
"""Target of a position that the loss leaves out."""
DRAW_BLOCK = 256  # words made at once by `draw`; a multiple of Philox's four


class Rows(NamedTuple):
    """What a batch is made of. B: device_batch_size, T: context_length."""

    ids: np.ndarray
    """(B, T+1), the dtype of the shards or int64."""
    mask: np.ndarray | None = None
    """(B, T+1) uint8: 1 where the id counts as a target; None: all of them do."""


class Loader(ABC):
    """An endless iterator of `Batch` with `state_dict()/load_state_dict()`.

    Everything it yields is a function of (dataset, seed, rank, world size) and of how much was handed out before. A
    state is JSON-able, equal on every rank (`HFStream`'s is not), and describes batches already handed out. A state of
    another stream, or one that this number of ranks cannot continue exactly, is a ValueError.
    B = device_batch_size rows, T = context_length; all ranks together take world_size·B rows per batch.
    """

    def __init__(
        self,
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
        self.context_length, self.device_batch_size = context_length, device_batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Ids are below this; checked for every batch."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What errors call the data, e.g. a path and a split."""

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Batches that each rank hands out in one epoch; the class says what an epoch covers."""

    @property
    def batch_shape(self) -> tuple[int, int]:
        """Of `Batch.inputs`. Loaders of packed documents hand out one row of B·T tokens."""
        return self.device_batch_size, self.context_length

    @abstractmethod
    def next_rows(self) -> Rows:
        """The rows of the next batch; what `__next__` makes tensors of and a mixture takes its rows from."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """JSON-able state that describes the batches already handed out; equal on every rank."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after what `state` describes. ValueError if it belongs to another stream."""

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        rows = self.next_rows()
        check_ids(rows.ids, self.vocab_size, self.where)
        return to_batch(rows)

    def identity(self) -> dict[str, Any]:
        """What makes the stream what it is, part of every state. A stream that depends on the ranks adds them."""
        return {
            "version": STATE_VERSION,
            "loader": type(self).__name__,
            "context_length": self.context_length,
            "seed": self.seed,
        }

    def check_identity(self, state: dict[str, Any]) -> None:
        """ValueError naming the first thing in which `state` belongs to another stream than this loader's."""
        for key, expected in self.identity().items():
            if state.get(key) != expected:
                raise ValueError(
                    f"this loader state has {key} = {state.get(key)!r}, the loader has {expected!r}. "
                    f"Resume with the same {key.replace('_', ' ')}, or start the data from the beginning."
                )


def to_batch(rows: Rows) -> Batch:
    """(B, T+1) ids -> inputs and targets (B, T) int64; masked targets become -1."""
    import torch  # here, so that preparing data does not wait seconds for it

    inputs, targets = rows.ids[:, :-1].astype(np.int64), rows.ids[:, 1:].astype(np.int64)
    if rows.mask is not None:
        targets[rows.mask[:, 1:] == 0] = IGNORED
    return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))


def draw(seed: int, first: int, count: int, limit: int, stream: int = 0) -> list[int]:
    """Numbers `first` to `first + count - 1` of an endless sequence of random integers in [0, limit).

    The sequence is a function of (seed, stream) alone. Counter-based (Philox 4x64, four words per count), so any part
    of it is as near as the start. Raw words modulo `limit` keep the numbers equal across numpy versions, which
    `Generator` does not promise; the bias is below limit / 2^64.
    """
    drawn: list[int] = []
    while len(drawn) < count:
        block, place = divmod(first + len(drawn), DRAW_BLOCK)
        drawn += [word % limit for word in _words(seed, stream, block)[place : place + count - len(drawn)]]
    return drawn


@lru_cache(maxsize=32)
def _words(seed: int, stream: int, block: int) -> list[int]:
    """Raw words number block·DRAW_BLOCK and following; kept, because making a generator takes longer than drawing."""
    return random_words(DRAW_BLOCK, seed, stream, block * DRAW_BLOCK).tolist()


def random_words(count: int, seed: int, stream: int = 0, first: int = 0) -> np.ndarray:
    """(count,) uint64: random words from number `first` (a multiple of 4) on of the sequence of (seed, stream)."""
    assert first % 4 == 0, "Philox makes four words at once"
    counter = np.array([first // 4, 0, 0, 0], np.uint64)
    return np.random.Philox(key=np.array([seed % 2**64, stream], np.uint64), counter=counter).random_raw(count)


def random_order(count: int, seed: int, stream: int = 0) -> np.ndarray:
    """(count,) int64: an order of `count` things, a function of (seed, stream) that no version of numpy changes.

    Takes memory for all of them; `Permutation` does not.
    """
    return np.argsort(random_words(count, seed, stream), kind="stable")

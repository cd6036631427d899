"""Data that is computed and not read: a table of rows in memory, and what stands for its dataset folder."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..tokenizers import Tokenizer
from .base import Loader, Rows
from .prefetch import prefetched
from .splits import Splits


@dataclass(frozen=True)
class SyntheticCorpus:
    """The rows of every split: a `Corpus` without a folder. N rows of T+1 ids."""

    name: str
    tokenizer: Tokenizer
    tables: dict[str, np.ndarray]
    """Split -> (N, T+1) ids."""
    mask: np.ndarray | None = None
    """(T+1,) uint8, the same for every row: 1 where the id counts as a target; None: all of them do."""

    path: Path | None = None

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @cached_property
    def digest(self) -> str:
        """sha256 of the vocabulary and of every id, in order."""
        content = hashlib.sha256(f"{self.tokenizer.name} {self.vocab_size}".encode())
        for split, table in self.tables.items():
            content.update(f" {split} {table.shape}".encode() + table.astype("<u4").tobytes())
        return content.hexdigest()

    def load_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def bytes_per_token(self, split: str) -> float | None:
        """None: these tokens stand for no text, so that bits per byte mean nothing."""
        return None

    def splits(self, *shape: int, seed: int, prefetch: int) -> Splits:
        """Loaders of all splits; shape: context_length, device_batch_size, rank, world_size."""
        train, val = ShuffledRows(self, "train", *shape, seed=seed), RowsInOrder(self, "val", *shape)
        test = RowsInOrder(self, "test", *shape) if "test" in self.tables else None
        return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=self)


class _TableLoader(Loader):
    """Rows of one split, chosen by their number among all that the ranks have handed out."""

    def __init__(self, corpus: SyntheticCorpus, split: str, *shape: int, seed: int = 0) -> None:
        super().__init__(*shape, seed=seed)
        self.corpus, self.split, self.table = corpus, split, corpus.tables[split]
        assert self.table.shape[1] == self.context_length + 1, "factories check the context length"
        self._batches = 0

    @property
    def vocab_size(self) -> int:
        return self.corpus.vocab_size

    @property
    def where(self) -> str:
        return f"{self.corpus.name}, split {self.split!r}"

    @property
    def batches_per_epoch(self) -> int:
        """In an epoch all ranks together see every row once."""
        return -(-len(self.table) // self._rows_per_batch)

    @property
    def _rows_per_batch(self) -> int:
        """Rows that all ranks together take at once."""
        return self.world_size * self.device_batch_size

    @abstractmethod
    def _choose(self, batch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(B,) rows of batch number `batch`, and (B,) which of them count (None: all)."""

    def next_rows(self) -> Rows:
        chosen, counted = self._choose(self._batches)
        self._batches += 1
        ids, mask = self.table[chosen], self.corpus.mask
        if mask is not None:
            mask = np.tile(mask, (len(ids), 1))
        if counted is not None:
            mask = (np.ones(ids.shape, np.uint8) if mask is None else mask) * counted[:, None].astype(np.uint8)
        return Rows(ids, mask)

    def identity(self) -> dict[str, Any]:
        return {"dataset": self.corpus.digest, "split": self.split, **super().identity()}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._batches * self._rows_per_batch, **self.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_identity(state)
        if not isinstance(rows := state.get("rows"), int) or rows < 0:
            raise ValueError(f"this loader state has rows = {rows!r}, expected how many were handed out.")
        if rows % self._rows_per_batch:
            raise ValueError(
                f"this loader state is after {rows} rows, which {self.world_size} ranks with batches of "
                f"{self.device_batch_size} do not reach. Resume with a number of ranks and a device_batch_size whose "
                "product divides it."
            )
        self._batches = rows // self._rows_per_batch


class ShuffledRows(_TableLoader):
    """Every row once per epoch, in a new order each: one endless sequence, which the ranks share.

    How the global batch is divided among ranks changes nothing, and a batch may end one epoch and begin the next.
    """

    _epoch, _order = -1, np.empty(0, np.int64)

    def _choose(self, batch: int) -> tuple[np.ndarray, None]:
        first = batch * self._rows_per_batch + self.rank * self.device_batch_size
        epochs, places = np.divmod(np.arange(first, first + self.device_batch_size), len(self.table))
        chosen = [self._order_of(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(chosen), None

    def _order_of(self, epoch: int) -> np.ndarray:
        """Which row comes when in this epoch: a permutation by (seed, epoch), of Philox's raw words."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(len(self.table), self.seed, epoch)
        return self._order


class RowsInOrder(_TableLoader):
    """Every row once per epoch, as they are in the table; the places of the last batch that none is left for are
    filled with rows that do not count, so that an epoch's mean is that of the split."""

    def _choose(self, batch: int) -> tuple[np.ndarray, np.ndarray | None]:
        first = batch % self.batches_per_epoch * self._rows_per_batch + self.rank * self.device_batch_size
        numbers = np.arange(first, first + self.device_batch_size)
        counted = numbers < len(self.table)
        return numbers % len(self.table), None if counted.all() else counted

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "world_size": self.world_size, "device_batch_size": self.device_batch_size}


def permutation(count: int, seed: int, stream: int = 0) -> np.ndarray:
    """A random order of `count` things, a function of (seed, stream) that no version of numpy changes."""
    return np.argsort(words(count, seed, stream), kind="stable")


def words(count: int, seed: int, stream: int = 0, first: int = 0) -> np.ndarray:
    """`count` random 64-bit words from number `first` (a multiple of 4) on of the sequence of (seed, stream)."""
    assert first % 4 == 0, "Philox makes four words at once"
    counter = np.array([first // 4, 0, 0, 0], np.uint64)
    return np.random.Philox(key=np.array([seed % 2**64, stream], np.uint64), counter=counter).random_raw(count)

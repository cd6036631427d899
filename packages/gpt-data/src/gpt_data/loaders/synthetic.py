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
from .base import Rows, random_order
from .counted import CountedLoader, WholeEpochs
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

    def splits(self, *shape: int, seed: int, prefetch: int) -> Splits:
        """Loaders of all splits; shape: context_length, device_batch_size, rank, world_size."""
        train, val = ShuffledRows(self, "train", *shape, seed=seed), RowsInOrder(self, "val", *shape)
        test = RowsInOrder(self, "test", *shape) if "test" in self.tables else None
        return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=self)


class _TableLoader(CountedLoader):
    """Rows of one split of a corpus in memory."""

    def __init__(self, corpus: SyntheticCorpus, split: str, *shape: int, seed: int = 0) -> None:
        super().__init__(*shape, seed=seed)
        self.corpus, self.split, self.table = corpus, split, corpus.tables[split]
        assert self.table.shape[1] == self.context_length + 1, "factories check the context length"

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

    @abstractmethod
    def _choose(self, numbers: np.ndarray) -> np.ndarray:
        """(B,) which rows of the table those with these numbers (B,) are."""

    def _make(self, batch: int) -> Rows:
        ids, mask = self.table[self._choose(self._numbers(batch))], self.corpus.mask
        return Rows(ids, None if mask is None else np.tile(mask, (len(ids), 1)))

    def identity(self) -> dict[str, Any]:
        return {"dataset": self.corpus.digest, "split": self.split, **super().identity()}


class ShuffledRows(_TableLoader):
    """Every row once per epoch, in a new order each: one endless sequence, which the ranks share.

    How the global batch is divided among ranks changes nothing, and a batch may end one epoch and begin the next.
    """

    _epoch, _order = -1, np.empty(0, np.int64)

    def _choose(self, numbers: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(numbers, len(self.table))
        chosen = [self._order_of(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(chosen)

    def _order_of(self, epoch: int) -> np.ndarray:
        """Which row comes when in this epoch: by (seed, epoch)."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, random_order(len(self.table), self.seed, epoch)
        return self._order


class RowsInOrder(WholeEpochs, _TableLoader):
    """Every row once per epoch, as they are in the table."""

    @property
    def epoch_rows(self) -> int:
        return len(self.table)

    def _choose(self, numbers: np.ndarray) -> np.ndarray:
        return numbers % len(self.table)

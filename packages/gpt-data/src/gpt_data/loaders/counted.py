"""Loaders whose batch k is a function of k alone: what they have in common, whatever their rows are of."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from .base import Loader, Rows


class CountedLoader(Loader):
    """A loader whose whole state is the number of batches handed out, so resuming costs nothing.

    A subclass says in `_make` which rows batch k is made of: a pure function of (data, seed, rank, k). Where row i of
    all ranks together does not depend on how many ranks there are, a run may resume on another number of them.
    """

    _batches = 0

    @abstractmethod
    def _make(self, batch: int) -> Rows:
        """The rows of this rank in batch number `batch`."""

    def next_rows(self) -> Rows:
        rows = self._make(self._batches)
        self._batches += 1
        return rows

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

    @property
    def _rows_per_batch(self) -> int:
        """Rows that all ranks together take at once."""
        return self.world_size * self.device_batch_size

    def _numbers(self, batch: int) -> np.ndarray:
        """(rows of a batch,) their numbers among all that the ranks together hand out: they take turns."""
        rows = self.batch_shape[0]
        first = (batch * self.world_size + self.rank) * rows
        return np.arange(first, first + rows)


class WholeEpochs(CountedLoader):
    """Evaluates every row once per epoch, at any number of ranks and any batch size.

    An epoch is `batches_per_epoch` batches on every rank. The places of the last one that no row is left for are filled
    with rows that do not count (targets -1; on some rank perhaps all of them), so that a mean over an epoch, weighted
    by the number of targets, is that of the split. The next epoch begins with the first row again.
    """

    @property
    @abstractmethod
    def epoch_rows(self) -> int:
        """Rows of an epoch, all ranks together."""

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.epoch_rows // (self.world_size * self.batch_shape[0]))

    def _numbers(self, batch: int) -> np.ndarray:
        """Numbers within the epoch; those from `epoch_rows` on do not count."""
        return super()._numbers(batch % self.batches_per_epoch)

    def next_rows(self) -> Rows:
        counted = self._numbers(self._batches) < self.epoch_rows
        return leave_out(super().next_rows(), counted)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "rows_per_batch": self._rows_per_batch}


def leave_out(rows: Rows, counted: np.ndarray) -> Rows:
    """`rows` with no targets in those that are not `counted` (B,), and the others' as they are."""
    if counted.all():
        return rows
    mask = np.ones(rows.ids.shape, np.uint8) if rows.mask is None else rows.mask.copy()
    mask[~counted] = 0
    return Rows(rows.ids, mask)

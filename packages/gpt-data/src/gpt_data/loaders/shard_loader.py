"""Loaders of one split of a prepared dataset, and among them those whose batch k is a function of k alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np

from ..dataset import DatasetInfo
from ..errors import DatasetError
from ..shards import TokenStream
from .base import Loader, Rows
from .counted import CountedLoader

LossOn = Literal["mask", "all"]


class ShardLoader(Loader):
    """Reads one split of a dataset folder.

    loss_on: `mask` leaves out the targets that the dataset's mask leaves out, where it has one; `all` counts every one.
    """

    pads = False
    """Rows need not be full of tokens."""

    def __init__(
        self,
        dataset: DatasetInfo,
        split: str,
        context_length: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        loss_on: LossOn = "mask",
    ) -> None:
        super().__init__(context_length, device_batch_size, rank, world_size, seed)
        if loss_on not in ("mask", "all"):
            raise ValueError(f"loss_on is {loss_on!r}, expected 'mask' or 'all'.")
        self.dataset, self.split = dataset, split
        self._digest = dataset.digest  # once: states are made for every batch
        self._stream = dataset.stream(split)
        self._mask_stream = dataset.mask_stream(split) if loss_on == "mask" else None
        if len(self._stream) <= context_length and not self.pads:
            raise DatasetError(
                f"{dataset.path}: split {split!r} has {len(self._stream)} tokens, a context of {context_length} "
                "needs at least one more than that. Use a shorter context_length or more text."
            )

    @property
    def vocab_size(self) -> int:
        return self.dataset.vocab_size

    @property
    def where(self) -> str:
        return f"{self.dataset.path}, split {self.split!r}"

    def identity(self) -> dict[str, Any]:
        identity = {"dataset": self._digest, "split": self.split, **super().identity()}
        return {**identity, "loss_on": "all" if self._mask_stream is None else "mask"}


class IndexedLoader(CountedLoader, ShardLoader):
    """A counted loader of one split: a subclass says in `_fill` which tokens belong to batch k."""

    @abstractmethod
    def _fill(self, ids: np.ndarray, batch: int, stream: TokenStream) -> None:
        """Write what `stream` (ids or their mask) holds for batch number `batch` into `ids` (B, T+1)."""

    def _make(self, batch: int) -> Rows:
        shape = self.batch_shape[0], self.batch_shape[1] + 1
        ids, mask = np.empty(shape, self._stream.dtype), None
        self._fill(ids, batch, self._stream)
        if self._mask_stream is not None:
            mask = np.empty(shape, self._mask_stream.dtype)
            self._fill(mask, batch, self._mask_stream)
        return Rows(ids, mask)

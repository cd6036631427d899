"""Dealing whole documents to ranks, in order: the speedrun's walk over the index of documents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import DatasetError
from .documents import Blocks, Place, Scanner


class Pieces(NamedTuple):
    """What one rank takes of a batch. D: documents."""

    starts: np.ndarray
    """(D,) positions in the token stream."""
    stops: np.ndarray
    """(D,) position after the last token that is taken."""

    def ends_in_row(self) -> np.ndarray:
        """(D,) where each document ends in the row that they make."""
        return np.cumsum(self.stops - self.starts)


class DocumentWalk:
    """Takes documents in file order, epoch after epoch, each at most once per epoch.

    It holds the documents of the blocks that the current batch lies in, and no more. Where those that are left before
    the end of a unit (a shard if the scanner goes by shard, else the split) do not fill a batch, they are dropped.
    place: before the next document.
    """

    def __init__(self, scanner: Scanner, place: Place) -> None:
        self.place = place
        self._scanner = scanner
        self._blocks = Blocks(scanner, place, lambda epoch: list(range(scanner.shards)))
        self._unit_ended = False
        self._epoch = place.epoch
        self._starts = self._ends = self._numbers = self._shards = np.empty(0, np.int64)

    def take(self, rank: int, ranks: int, tokens: int, longest: int) -> Pieces:
        """Pieces of `tokens` tokens for each of `ranks`, of no document more than `longest`: those of `rank`.

        DatasetError if no unit holds enough documents for a batch.
        """
        units = 0
        while True:
            if self._starts.size and (taken := self._deal(rank, ranks, tokens, longest)) is not None:
                return taken
            if self._unit_ended:
                self._drop()
                units += 1
                if units > self._units + 1:
                    raise self._too_short(ranks, tokens, longest)
            self._extend()

    @property
    def _units(self) -> int:
        return self._scanner.shards if self._scanner.by_shard else 1

    def _deal(self, rank: int, ranks: int, tokens: int, longest: int) -> Pieces | None:
        most = ranks * tokens  # documents that can be needed: each gives a token at least
        starts = self._starts[:most]
        stops = np.minimum(self._ends[:most], starts + longest)
        sums = np.cumsum(stops - starts)
        if sums[-1] < ranks * tokens:
            return None
        edges, before = [0], 0  # edges: the first document of each rank
        for _ in range(ranks):
            last = int(sums.searchsorted(before + tokens))
            if last == len(sums):
                return None
            edges.append(last + 1)
            before = int(sums[last])
        own = slice(edges[rank], edges[rank + 1])
        taken = Pieces(starts[own], stops[own])
        taken.stops[-1] -= int((taken.stops - taken.starts).sum()) - tokens  # the last one is cut where the row is full
        self._advance(edges[-1])
        return taken

    def _advance(self, count: int) -> None:
        last = count - 1
        shard = int(self._shards[last])
        position = int(self._starts[last]) - self._scanner.stream.starts[shard] + 1
        self.place = Place(self._epoch, shard, int(self._numbers[last]) + 1, position)
        self._starts, self._ends = self._starts[count:], self._ends[count:]
        self._numbers, self._shards = self._numbers[count:], self._shards[count:]

    def _drop(self) -> None:
        self._starts = self._ends = self._numbers = self._shards = np.empty(0, np.int64)
        self._unit_ended = False

    def _extend(self) -> None:
        block = next(self._blocks)
        count = len(block.documents.starts)
        self._epoch = block.epoch
        self._unit_ended = block.last and (self._scanner.by_shard or block.shard == self._scanner.shards - 1)
        self._starts = np.concatenate([self._starts, block.documents.starts])
        self._ends = np.concatenate([self._ends, block.documents.ends])
        self._numbers = np.concatenate([self._numbers, np.arange(block.number, block.number + count)])
        self._shards = np.concatenate([self._shards, np.full(count, block.shard)])

    def _too_short(self, ranks: int, tokens: int, longest: int) -> DatasetError:
        unit = "no shard" if self._scanner.by_shard else "the split never"
        return DatasetError(
            f"{self._scanner.where}: {unit} holds enough documents for a batch: {ranks} ranks · {tokens} tokens of "
            f"documents of which at most {longest} tokens each are used. Use a smaller device_batch_size, a larger "
            "max_document or more text."
        )

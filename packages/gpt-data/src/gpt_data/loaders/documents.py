"""Where the documents of a split are, found by reading its tokens block by block, some blocks ahead in a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..dataset import DatasetInfo
from ..errors import DatasetError

BLOCK_TOKENS = 1 << 20
BLOCKS_AHEAD = 4
SEARCH_TOKENS = 1 << 14
"""Read at once to find where the last document of a block ends."""


class Documents(NamedTuple):
    """Some documents in a row. N: how many; positions are those of the split's token stream."""

    starts: np.ndarray
    """(N,) int64: position of the first token of each; -1: an end token that stands before the stream."""
    ends: np.ndarray
    """(N,) int64: position after the last token."""


class Place(NamedTuple):
    """How far the documents of a split were taken; JSON-able, independent of how they were read."""

    epoch: int = 0
    shard: int = 0
    document: int = 0
    """Documents of this shard before this place."""
    position: int = -1
    """In the shard: the next document is the first one that begins here or later."""


class Scanner:
    """Finds documents. A document begins with the boundary token and ends before the next one.

    Where the dataset's boundary is at the `end` of documents, the token that ends a document is taken as the first of
    the next: the stream of documents is then the same as if every one began with it, only that the first has none.

    by_shard: a document that a shard cuts ends there, and the rest, in the next shard, is left out (the speedrun's
    rule, for datasets with boundary at `start`); otherwise documents go on in the next shard.
    virtual_start: the first document of a dataset with boundary at `end` starts at -1, where an end token is imagined,
    and not at 0 without one.
    """

    def __init__(
        self, dataset: DatasetInfo, split: str, *, by_shard: bool = False, virtual_start: bool = False
    ) -> None:
        if dataset.boundary is None:
            raise DatasetError(
                f"{dataset.path}: is one continuous text, its description names no boundary token, so documents "
                "cannot be told apart. Use random_windows or sequential, or prepare it from several documents."
            )
        self.boundary = dataset.boundary
        self.stream = dataset.stream(split)  # its own: the thread's file handles are not shared with the loader
        self.by_shard = by_shard
        self.where = f"{dataset.path}, split {split!r}"
        self._begin = None if self.boundary.at == "start" else -1 if virtual_start else 0

    @property
    def shards(self) -> int:
        return len(self.stream.starts) - 1

    def scan(self, shard: int, position: int, count: int) -> Documents:
        """The documents that begin in `count` tokens of a shard from `position` (in the shard) on."""
        first, end = self.stream.starts[shard : shard + 2]
        low, high = max(first + position, first), min(first + position + count, end)
        starts = self._boundaries(low, high)
        if shard == 0 and self._begin is not None and position <= self._begin and self._begin not in starts[:1]:
            starts = np.concatenate([[self._begin], starts])
        ends = np.empty_like(starts)
        if len(starts):
            ends[:-1] = starts[1:]
            ends[-1] = self._next_boundary(high, end if self.by_shard else len(self.stream))
        return Documents(starts, ends)

    def _boundaries(self, low: int, high: int) -> np.ndarray:
        """Positions of the tokens in [low, high) with which documents begin."""
        if self.boundary.at == "end":
            high = min(high, len(self.stream) - 1)  # no document follows the last token
        if low >= high:
            return np.empty(0, np.int64)
        return low + np.flatnonzero(self.stream.read(low, high - low) == self.boundary.id)

    def _next_boundary(self, position: int, limit: int) -> int:
        """Where the first document at or after `position` begins, `limit` if none does before it."""
        while position < limit:
            found = self._boundaries(position, min(position + SEARCH_TOKENS, limit))
            if len(found):
                return int(found[0])
            position += SEARCH_TOKENS
        return limit


class Block(NamedTuple):
    """The documents that begin in one piece of a shard."""

    epoch: int
    shard: int
    documents: Documents
    number: int
    """Of the first of them in its shard."""
    last: bool
    """The shard has no more."""


class Blocks:
    """The blocks of a split from a place on, epoch after epoch without end; a thread reads some ahead.

    scan: `(shard, position, count) -> Documents`, usually a scanner's; order: the shards of an epoch, in their order.
    Which blocks come, and what they hold, does not depend on how fast the thread is. Its errors are raised by `next`.
    """

    def __init__(
        self,
        scanner: Scanner,
        place: Place,
        order: Callable[[int], list[int]],
        scan: Callable[[int, int, int], Documents] | None = None,
    ) -> None:
        self._scan = scan or scanner.scan
        self._pieces = pieces(scanner.stream.starts, order, place)
        self._number = place.document
        self._ahead: deque[tuple[tuple[int, int, bool], Future[Documents]]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def __next__(self) -> Block:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="documents")
        while len(self._ahead) < BLOCKS_AHEAD:
            epoch, shard, position, count, last = next(self._pieces)
            self._ahead.append(((epoch, shard, last), self._thread.submit(self._scan, shard, position, count)))
        (epoch, shard, last), found = self._ahead.popleft()
        documents = found.result()
        block = Block(epoch, shard, documents, self._number, last)
        self._number = 0 if last else self._number + len(documents.starts)
        return block


def pieces(
    starts: Sequence[int], order: Callable[[int], list[int]], place: Place
) -> Iterator[tuple[int, int, int, int, bool]]:
    """(epoch, shard, position, tokens, whether it is the shard's last) of all blocks from `place` on, without end.

    starts: position of the first token of each shard, and the length of the stream.
    """
    epoch, position = place.epoch, place.position
    shards = order(epoch)
    shards = shards[shards.index(place.shard) :]
    while True:
        for shard in shards:
            size = starts[shard + 1] - starts[shard]
            while True:
                end = min((max(position, 0) // BLOCK_TOKENS + 1) * BLOCK_TOKENS, size)
                yield epoch, shard, position, end - position, end == size
                if end == size:
                    break
                position = end
            position = -1
        epoch, shards = epoch + 1, order(epoch + 1)


def place_from(state: dict[str, Any], shards: int) -> Place:
    """The place in a loader state. ValueError if it is none of a split with so many shards."""
    fields = {name: state.get(name) for name in Place._fields}
    values = [value for value in fields.values() if isinstance(value, int)]
    if len(values) < len(fields):
        raise ValueError(f"this loader state has the place {fields}, expected integers.")
    place = Place(*values)
    if not (place.epoch >= 0 and 0 <= place.shard < shards and place.document >= 0 and place.position >= -1):
        raise ValueError(f"this loader state has the place {fields}, the split has shards 0 to {shards - 1}.")
    return place

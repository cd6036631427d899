"""Best-fit packing: rows of one length made of whole documents where they fit.

Source: nanochat's BOS-aligned best-fit loader (spec scaling_midtrain_chat §4a, 4e).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from ..errors import DatasetError
from ..shards import TokenStream
from .base import Rows, random_order
from .documents import Blocks, Documents, Place, Scanner, place_from
from .shard_loader import ShardLoader

LongDocuments = Literal["wait", "cut", "split"]
POSITION_BITS = 48
SAMPLED = 4096
"""Rows that the length of an epoch of train is judged by; one that has fewer is counted."""


class DocumentFeed:
    """Documents one by one, epoch after epoch: `next()` gives (start, length). `place` is before the next one.

    order: the shards of an epoch; scan: finds (and may leave out) documents; none: what to say if an epoch has none.
    """

    def __init__(
        self,
        scanner: Scanner,
        place: Place,
        order: Callable[[int], list[int]],
        scan: Callable[[int, int, int], Documents],
        none: str,
    ) -> None:
        self._blocks = Blocks(scanner, place, order, scan)
        self._shards, self._none = scanner.shards, f"{scanner.where}: {none}"
        self._shard_starts = scanner.stream.starts
        self._before = place
        self._epoch = self._shard = self._number = 0  # of the block; number: of the next document
        self._starts: list[int] = []
        self._lengths: list[int] = []
        self._taken = 0

    @property
    def place(self) -> Place:
        if not self._taken:
            return self._before
        position = self._starts[self._taken - 1] - self._shard_starts[self._shard] + 1
        return Place(self._epoch, self._shard, self._number + self._taken, position)

    @property
    def epoch(self) -> int:
        """Of the next document."""
        if self._taken == len(self._starts):
            self._advance()
        return self._epoch

    def __next__(self) -> tuple[int, int]:
        if self._taken == len(self._starts):
            self._advance()
        document = self._starts[self._taken], self._lengths[self._taken]
        self._taken += 1
        return document

    def _advance(self) -> None:
        """Go on to the next block that has documents."""
        self._before, empty_shards = self.place, 0
        self._taken = 0
        while True:
            block = next(self._blocks)
            if len(block.documents.starts):
                break
            empty_shards += block.last
            if empty_shards > self._shards:
                raise DatasetError(self._none)
        self._epoch, self._shard, self._number = block.epoch, block.shard, block.number
        self._starts = block.documents.starts.tolist()
        self._lengths = (block.documents.ends - block.documents.starts).tolist()


class Packer:
    """Plans rows of `capacity` tokens out of a buffer of documents.

    Before each row the buffer is filled up to `buffer` documents of the epoch; those of the next one come when it is
    empty, so an epoch uses every document once. Into the row goes again and again the longest
    document that fits the gap; when none fits, the shortest of the buffer, cut to the gap, its rest left out (`crop`),
    or the row ends there. Of equally long ones the first in the file goes first.
    long_documents: what becomes of one longer than a row when it enters the buffer. `wait`: it never fits, and waits
    there until it is the shortest; `cut`: to a row's length; `split`: into pieces of that, each begins with the last
    token of the one before, so no target is lost.
    apart: a row ends with the last document of an epoch, and does not go on with the first of the next.
    most: documents of a row; None: as many as fit.
    """

    def __init__(
        self,
        feed: DocumentFeed,
        capacity: int,
        buffer: int,
        crop: bool,
        long_documents: LongDocuments = "wait",
        apart: bool = False,
        most: int | None = None,
    ) -> None:
        self.feed, self.capacity, self.buffer, self.crop = feed, capacity, buffer, crop
        self.long_documents, self.apart, self.most = long_documents, apart, most
        self.epoch = feed.place.epoch
        """Of the documents in the buffer."""
        self.rows = self.used = self.cropped = 0
        """Planned so far: rows, tokens in them, tokens left out."""
        self._keys: list[int] = []  # sorted: (length, start + 1) as one integer

    def batch(self, count: int) -> list[list[tuple[int, int]]]:
        """The next `count` rows; with `apart` all of one epoch, the ones that it does not fill empty."""
        self.fill()
        epoch, rows = self.epoch, []
        for _ in range(count):
            self.fill()
            rows.append([] if self.apart and self.epoch != epoch else self.row())
        return rows

    def row(self) -> list[tuple[int, int]]:
        """The next row: (start, length) of its pieces."""
        keys, gap, pieces = self._keys, self.capacity, []
        self.fill()
        while gap and len(pieces) != self.most:
            if not keys:
                if self.apart and pieces and self.feed.epoch != self.epoch:
                    break
                self.fill()
            fitting = bisect_left(keys, (gap + 1) << POSITION_BITS)  # so many fit
            if fitting:
                longest = keys[fitting - 1] >> POSITION_BITS
                key = keys.pop(bisect_left(keys, longest << POSITION_BITS))
            elif self.crop:
                key = keys.pop(0)
            else:
                break
            length, start = key >> POSITION_BITS, (key & ((1 << POSITION_BITS) - 1)) - 1
            if length > gap:
                self.cropped += length - gap
                length = gap
            pieces.append((start, length))
            gap -= length
        self.rows += 1
        self.used += self.capacity - gap
        return pieces

    def fill(self) -> None:
        """What comes before each row."""
        keys, feed = self._keys, self.feed
        while len(keys) < self.buffer:
            if feed.epoch != self.epoch:
                if keys:
                    return
                self.epoch = feed.epoch
            start, length = next(feed)
            if length > self.capacity and self.long_documents != "wait":
                self._enter_long(start, length)
            else:
                insort(keys, length << POSITION_BITS | (start + 1))

    def _enter_long(self, start: int, length: int) -> None:
        stride = self.capacity - 1  # context_length: a row's last token is only a target
        ends = [self.capacity] if self.long_documents == "cut" else range(self.capacity, length + stride, stride)
        for end in ends:
            first = end - self.capacity
            insort(self._keys, (min(end, length) - first) << POSITION_BITS | (start + first + 1))
        self.cropped += length - min(ends[-1], length)

    def state_dict(self) -> dict[str, Any]:
        """`buffered`: for each document in the buffer `length << 48 | start + 1`, which is quick to copy per batch."""
        counts = {"rows": self.rows, "used": self.used, "cropped": self.cropped}
        return {**self.feed.place._asdict(), "buffered": list(self._keys), **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Everything but the place, which the feed was made with. ValueError if it is no state of a packer."""
        keys = state.get("buffered")
        counts = [value for name in ("rows", "used", "cropped") if isinstance(value := state.get(name), int)]
        if not isinstance(keys, list) or len(counts) < 3 or min(counts) < 0:
            raise ValueError(
                "this loader state has no list `buffered` of documents, or no counts `rows`, `used` and `cropped`. "
                "Start the data from the beginning."
            )
        self._keys = sorted(map(int, keys))
        self.rows, self.used, self.cropped = counts


class PackingLoader(ShardLoader):
    """Rows that a `Packer` plans. One packing for all ranks: of the rows of a batch rank r takes [rB, (r+1)B).

    Every rank plans all rows, from the lengths of documents alone, and reads its own. So the state, the place in the
    split and the documents in the buffer, fits any number of ranks and any batch size.
    Of val and test, an epoch takes every document once: its last row, and the rows that fill up its last batch, hold
    padding that does not count, on some rank perhaps all of it.
    shuffle: another order of the shards in every epoch, drawn by seed; documents of a shard stay in order.
    """

    crop: bool
    long_documents: LongDocuments
    most_documents: int | None = None
    """Of a row; None: as many as fit."""
    nothing: str
    """What to say if no document can be used."""

    def __init__(self, *args: Any, buffer: int, shuffle: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if buffer < 1:
            raise ValueError(f"buffer is {buffer}, expected at least one document.")
        self.buffer, self.shuffle = buffer, shuffle
        self._order = partial(shard_order, len(self._stream.starts) - 1, self.seed if shuffle else None)
        self._first = Place(shard=self._order(0)[0])
        self._packer = self._new_packer(self._first)

    @property
    def batches_per_epoch(self) -> int:
        """Until every document was used, padding and what is cropped included; of a long train split about so many, as
        if all of it could be packed like its beginning."""
        return -(-self._epoch_rows // (self.world_size * self.device_batch_size))

    @cached_property
    def _epoch_rows(self) -> int:
        packer, documents = self._new_packer(self._first), 0
        while self.split != "train" or packer.rows < SAMPLED:
            packer.fill()
            if packer.epoch:
                return packer.rows
            documents += len(packer.row())
        # cropped documents may go in as several pieces, whole ones were cut before they were seen here
        split = self.dataset.splits[self.split]
        part, whole = (packer.used + packer.cropped, split.tokens) if self.crop else (documents, split.documents)
        return -(-packer.rows * whole // part)

    def _scanner(self) -> Scanner:
        return Scanner(self.dataset, self.split, virtual_start=True)

    def _scan(self, scanner: Scanner) -> Callable[[int, int, int], Documents]:
        return scanner.scan

    def _new_packer(self, place: Place) -> Packer:
        scanner = self._scanner()
        self._boundary = scanner.boundary.id
        feed = DocumentFeed(scanner, place, self._order, self._scan(scanner), self.nothing)
        apart = self.split != "train"
        capacity = self.context_length + 1
        return Packer(feed, capacity, self.buffer, self.crop, self.long_documents, apart, self.most_documents)

    def next_rows(self) -> Rows:
        before = self._packer.state_dict()
        try:
            return self._next_rows()
        except BaseException:
            self._go_to(before)  # the next `next` tries the same batch: no document is left out or doubled
            raise

    def _next_rows(self) -> Rows:
        rows, first = self.device_batch_size, self.rank * self.device_batch_size
        plans = self._packer.batch(self.world_size * rows)[first : first + rows]
        ids = self._read(self._stream, plans, self._boundary, self._boundary)
        if self._mask_stream is not None:
            return Rows(ids, self._read(self._mask_stream, plans, 1, 0))
        mask = np.ones(ids.shape, np.uint8)
        for row, plan in zip(mask, plans, strict=True):
            row[sum(length for _, length in plan) :] = 0
        return Rows(ids, None if mask.all() else mask)

    def _read(self, stream: TokenStream, plans: list[list[tuple[int, int]]], imagined: int, padding: int) -> np.ndarray:
        """(B, T+1): the pieces of every row; imagined: what stands at -1; padding: what follows the last piece."""
        rows = np.empty((len(plans), self.context_length + 1), stream.dtype)
        for row, plan in zip(rows, plans, strict=True):
            at = 0
            for start, length in plan:
                if start < 0:
                    row[at] = imagined
                    stream.read_into(row[at + 1 : at + length], 0)
                else:
                    stream.read_into(row[at : at + length], start)
                at += length
            row[at:] = padding
        return rows

    def state_dict(self) -> dict[str, Any]:
        return {**self._packer.state_dict(), **self.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_identity(state)
        self._go_to(state)

    def _go_to(self, state: dict[str, Any]) -> None:
        packer = self._new_packer(place_from(state, len(self._stream.starts) - 1))
        packer.load_state_dict(state)
        self._packer = packer

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "buffer": self.buffer, "shuffle": self.shuffle}


def shard_order(count: int, seed: int | None, epoch: int) -> list[int]:
    """The shards of an epoch: in file order, or with a seed in an order that it and the epoch decide."""
    if seed is None:
        return list(range(count))
    return random_order(count, seed, epoch).tolist()

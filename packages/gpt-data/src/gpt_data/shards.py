"""A token stream stored as several flat `.bin` files, read by position.

Nothing is memory-mapped: `os.preadv` copies exactly the wanted bytes into the caller's array. Resident memory
therefore stays flat however long a run is (a mapped corpus counts every touched page), a file that shrinks under
a running job is an error and not a bus error, and it works on file systems without mmap. It costs the same.
"""

from __future__ import annotations

import bisect
import itertools
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import DatasetError

MAX_OPEN_FILES = 64


class TokenStream:
    """The concatenation of token shards, addressed by token position.

    paths: flat little-endian files; tokens: the number of ids that each holds; dtype: `<u2` or `<u4` (`u1` for masks);
    offsets: bytes before the first id of each file (default: none).
    """

    def __init__(
        self, paths: Sequence[Path], tokens: Sequence[int], dtype: np.dtype, offsets: Sequence[int] | None = None
    ) -> None:
        offsets = [0] * len(paths) if offsets is None else offsets
        assert len(paths) == len(tokens) == len(offsets)
        self.paths = tuple(paths)
        self.dtype, self._itemsize = dtype, dtype.itemsize
        self.starts = (0, *itertools.accumulate(tokens))
        """Position of the first token of each file, and the length of the stream."""
        self._offsets = tuple(offsets)
        self._files: OrderedDict[int, int] = OrderedDict()  # shard -> file descriptor, least recently used first
        weakref.finalize(self, _close_all, self._files)

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, position: int, count: int) -> np.ndarray:
        """`count` ids from `position` on."""
        ids = np.empty(count, self.dtype)
        self.read_into(ids, position)
        return ids

    def read_into(self, row: np.ndarray, position: int) -> None:
        """Fill `row` (contiguous, of this stream's dtype) with the ids from `position` on; never wraps."""
        end = position + len(row)
        assert position >= 0 and end <= len(self), "read past the end of the token stream"
        if position == end:
            return
        shard = bisect.bisect_right(self.starts, position) - 1
        while end > self.starts[shard + 1]:
            count = self.starts[shard + 1] - position
            self._read_shard(shard, row[:count], position - self.starts[shard])
            row, position, shard = row[count:], position + count, shard + 1
        self._read_shard(shard, row, position - self.starts[shard])

    def _read_shard(self, shard: int, row: np.ndarray, offset: int) -> None:
        file, at = self._file(shard), self._offsets[shard] + offset * self._itemsize
        got = _read_at(file, row.data, at)
        if got == row.nbytes:
            return  # as ever; the rest is for reads that come in parts
        view = row.data.cast("B")
        while got:
            view, at = view[got:], at + got
            if not view:
                return
            got = _read_at(file, view, at)
        raise DatasetError(
            f"{self.paths[shard]}: ends at byte {at}, {len(view)} bytes early. The file shrank since it was opened: "
            "prepare the dataset again."
        )

    def _file(self, shard: int) -> int:
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        if len(self._files) >= MAX_OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[shard] = os.open(self.paths[shard], os.O_RDONLY)
        return self._files[shard]


def _read_at(file: int, view: memoryview, at: int) -> int:
    """Read bytes from position `at` into `view`; returns how many came, 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(file, [view], at)
    content = os.pread(file, view.nbytes, at)  # some macOS builds: one more copy
    view.cast("B")[: len(content)] = content
    return len(content)


def _close_all(files: OrderedDict[int, int]) -> None:
    while files:
        os.close(files.popitem()[1])

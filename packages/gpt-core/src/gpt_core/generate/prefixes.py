"""Beginnings that were encoded before, so that the next turn of a conversation encodes only what is new."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from .slots import Snapshot, longest_common_prefix


class Found(NamedTuple):
    """A snapshot that begins as the prompt does, and for how many tokens."""

    snapshot: Snapshot
    length: int


class Prefixes:
    """Snapshots of rows by the tokens that they hold; those used longest ago are forgotten first.

    Args:
        max_bytes: of keys and values kept in all; 0 keeps nothing.
        min_length: shorter beginnings are not worth the copy.
    """

    def __init__(self, max_bytes: int, min_length: int = 16):
        self.max_bytes, self.min_length, self.nbytes = max_bytes, min_length, 0
        self._kept: OrderedDict[tuple[int, ...], Snapshot] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def wants(self, length: int) -> bool:
        """Whether a row of so many tokens would be kept: ask before copying it."""
        return self.max_bytes > 0 and length >= self.min_length

    def add(self, ids: Sequence[int], snapshot: Snapshot) -> None:
        """Keep what a row holds for the tokens `ids`; a beginning of it that is kept already makes room."""
        if snapshot.nbytes > self.max_bytes:
            return  # making room for it would forget all others, and it after them
        key = tuple(ids)
        assert len(key) == snapshot.length, "a snapshot belongs to as many tokens as it holds"
        if snapshot.rewindable:  # it can stand in for its own beginnings
            for other in [other for other in self._kept if len(other) <= len(key) and key[: len(other)] == other]:
                self._drop(other)
        elif key in self._kept:
            self._drop(key)
        self._kept[key] = snapshot
        self.nbytes += snapshot.nbytes
        while self.nbytes > self.max_bytes and self._kept:
            self._drop(next(iter(self._kept)))

    def find(self, prompt: Sequence[int]) -> Found | None:
        """The snapshot that saves most of encoding `prompt`, whose last token is never saved: its logits are wanted."""
        wanted = tuple(prompt[:-1])
        best: tuple[int, tuple[int, ...]] | None = None
        for key, snapshot in self._kept.items():
            length = longest_common_prefix(key, wanted)
            usable = length if snapshot.rewindable or length == len(key) else 0
            if usable >= self.min_length and (best is None or usable > best[0]):
                best = (usable, key)
        if best is None:
            return None
        self._kept.move_to_end(best[1])
        return Found(self._kept[best[1]], best[0])

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.nbytes = 0

    def _drop(self, key: tuple[int, ...]) -> None:
        self.nbytes -= self._kept.pop(key).nbytes

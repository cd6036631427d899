"""A random order of any number of things that needs no memory: a keyed permutation.

Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains (2002): a Feistel network on the smallest domain of an
even number of bits that holds them all, applied again to what falls outside (cycle walking).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUNDS = 8


class Permutation:
    """A permutation of 0 to size-1 that `keys` (at least `ROUNDS` integers in [0, 2^64)) decide."""

    def __init__(self, size: int, keys: Sequence[int]) -> None:
        assert size >= 1 and len(keys) >= ROUNDS
        self.size = size
        self._half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)  # bits
        self._keys = np.array(keys[:ROUNDS], np.uint64)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """int64 of the shape of `indices`, which are in [0, size): where each of them goes."""
        out = self._mix(indices.astype(np.uint64))
        while (outside := np.flatnonzero(out >= self.size)).size:
            out[outside] = self._mix(out[outside])
        return out.astype(np.int64)

    def _mix(self, values: np.ndarray) -> np.ndarray:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = values >> half, values & mask
        for key in self._keys:
            left, right = right, left ^ (_hash(right + key) & mask)
        return (left << half) | right


def _hash(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

"""Random numbers as a function of a key and a place: equal on every device, in every batch size and every version."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
FIELD = 16
"""Bits of a field; a word has four."""
FIELDS = 1 << FIELD


def mix(words: Tensor) -> Tensor:
    """splitmix64's finalizer (Steele et al. 2014): a bijection of 64-bit words that looks random. int64 in and out."""
    words = (words ^ _shifted(words, 30)) * _signed(MULTIPLIERS[0])
    words = (words ^ _shifted(words, 27)) * _signed(MULTIPLIERS[1])
    return words ^ _shifted(words, 31)


def mix_one(word: int) -> int:
    """`mix` of one Python integer; signed."""
    word %= WORD
    word = ((word ^ (word >> 30)) * MULTIPLIERS[0]) % WORD
    word = ((word ^ (word >> 27)) * MULTIPLIERS[1]) % WORD
    return _signed(word ^ (word >> 31))


def key_of(*parts: int) -> int:
    """One key for a tuple of integers, in order."""
    key = 0
    for part in parts:
        key = mix_one(key + GOLDEN * (part + 1))
    return key


def words(keys: Tensor, *shape: int) -> Tensor:
    """(*keys.shape, *shape) int64: random words of every key."""
    count = 1
    for size in shape:
        count *= size
    places = torch.arange(1, count + 1, device=keys.device) * _signed(GOLDEN)
    return mix(keys[..., None] + places).view(*keys.shape, *shape)


def field(word: Tensor, number: int) -> Tensor:
    """Field 0 to 3 of random words: uniform below `FIELDS`."""
    return (word >> (number * FIELD)) & (FIELDS - 1)


def half(word: Tensor, number: int) -> Tensor:
    """Half 0 or 1 of random words: uniform below 2^32."""
    return (word >> (number * 32)) & 0xFFFFFFFF


def below(limit: Tensor | int, uniform: Tensor, bits: int = FIELD) -> Tensor:
    """Uniform in [0, limit) from `uniform` below 2^bits; the bias is below limit / 2^bits."""
    return (uniform * limit) >> bits


def threshold(probability: float) -> int:
    """A field is below this with that probability."""
    return round(probability * FIELDS)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    """The same 64 bits as a signed integer."""
    word %= WORD
    return word - WORD if word >= WORD // 2 else word

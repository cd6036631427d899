"""Products, written out and packed into rows: `47*942=44274|`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..tokenizers import ArithmeticTokenizer
from .base import random_order, random_words
from .splits import Splits
from .synthetic import SyntheticCorpus

MOST_DIGITS = 9
"""Products of longer numbers do not fit into 64 bits."""
DENSE = 4
"""With fewer pairs than this times what is wanted, all of them are shuffled; with more, some are drawn."""


def arithmetic(
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    min_digits: int = 1,
    max_digits: int = 3,
    max_samples: int = 5000,
    data_seed: int = 0,
    prefetch: int = 2,
) -> Splits:
    """Products of two numbers of equally many digits, from `min_digits` to `max_digits`.

    For each number of digits: all products, for training only, if there are at most `max_samples` of them; else
    `max_samples` different ones, packed into rows of which every second is held out. So small tables are learned and
    large ones are generalized. data_seed: which products are drawn, the same for every `seed` of the training.
    A row is `context_length` symbols of whole products; what does not fit any more begins the next row, and `_` fills
    up. The target after a row's last symbol is `|`.
    """
    if not 1 <= min_digits <= max_digits <= MOST_DIGITS:
        raise ValueError(
            f"min_digits and max_digits are {min_digits} and {max_digits}, expected 1 <= min_digits <= max_digits <= "
            f"{MOST_DIGITS}."
        )
    if max_samples < 1:
        raise ValueError(f"max_samples is {max_samples}, expected at least 1.")
    if context_length < (longest := 4 * max_digits + 3):
        raise ValueError(
            f"context_length is {context_length}, but a product of numbers of {max_digits} digits takes up to "
            f"{longest} symbols. Set training.context_length to at least that, or max_digits lower."
        )
    train: list[str] = []
    val: list[str] = []
    for digits in range(min_digits, max_digits + 1):
        texts, complete = products(digits, max_samples, data_seed)
        rows = pack(texts, context_length)
        train += rows if complete else rows[::2]
        val += [] if complete else rows[1::2]
    if not val:
        raise ValueError(
            f"none of the products of {min_digits} to {max_digits} digits are held out: with max_samples = "
            f"{max_samples} they are all for training. Set max_samples lower or max_digits higher."
        )
    tokenizer = ArithmeticTokenizer()
    tables = {"train": _ids(train, tokenizer), "val": _ids(val, tokenizer)}
    name = f"arithmetic, products of {min_digits} to {max_digits} digits"
    corpus = SyntheticCorpus(name, tokenizer, tables)
    return corpus.splits(context_length, device_batch_size, rank, world_size, seed=seed, prefetch=prefetch)


def products(digits: int, max_samples: int, seed: int) -> tuple[list[str], bool]:
    """`x*y=z|` of all pairs of numbers of so many digits, in order, and True if they are at most `max_samples`; else of
    `max_samples` different pairs in random order, and False."""
    low, count = 10 ** (digits - 1), 9 * 10 ** (digits - 1)
    complete = count**2 <= max_samples
    pairs = np.arange(count**2) if complete else _distinct(count**2, max_samples, seed, digits)
    x, y = low + pairs // count, low + pairs % count
    return [f"{a}*{b}={c}|" for a, b, c in zip(x.tolist(), y.tolist(), (x * y).tolist(), strict=True)], complete


def _distinct(limit: int, count: int, seed: int, stream: int) -> np.ndarray:
    """(count,) different numbers below `limit`, in random order."""
    if limit <= DENSE * count:
        return random_order(limit, seed, stream)[:count]
    drawn = np.empty(0, np.int64)
    number = 0
    while len(drawn) < count:
        more = (random_words(4 * count, seed, stream, number) % np.uint64(limit)).astype(np.int64)
        together, number = np.concatenate([drawn, more]), number + 4 * count
        drawn = together[np.sort(np.unique(together, return_index=True)[1])]
    return drawn[:count]


def pack(texts: Iterable[str], length: int) -> list[str]:
    """Rows of `length` symbols: as many whole texts as fit, in order, filled up with `_`."""
    rows: list[str] = []
    row = ""
    for text in texts:
        if len(row) + len(text) > length:
            rows.append(row.ljust(length, "_"))
            row = ""
        row += text
    return [*rows, row.ljust(length, "_")] if row else rows


def _ids(rows: list[str], tokenizer: ArithmeticTokenizer) -> np.ndarray:
    """(N, T+1) uint8: a row, and the end token as the target of its last symbol."""
    joined = np.array(tokenizer.encode("|".join([*rows, ""])), np.uint8)
    return joined.reshape(len(rows), -1)

"""Equations modulo a prime, half of them held out: the data of grokking (Power et al. 2022, arXiv:2201.02177)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..tokenizers import GrokkingTokenizer
from ..tokenizers.grokking import OPERATIONS
from .base import random_order
from .shard_loader import LossOn
from .splits import Splits
from .synthetic import SyntheticCorpus

ROW = 5
"""Tokens of a question: `<|eos|>` x operation y `=`. The sixth is the answer."""
Numbers = np.ndarray
RESULTS: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "x+y": lambda x, y: x + y,
    "x-y": lambda x, y: x - y,
    "x^2+xy+y^2": lambda x, y: x**2 + x * y + y**2,
    "x^2+xy+y^2+x": lambda x, y: x**2 + x * y + y**2 + x,
    "x^2+y^2": lambda x, y: x**2 + y**2,
    "x^3+xy": lambda x, y: x**3 + x * y,
    "x^3+xy^2+x": lambda x, y: x**3 + x * y**2 + x,
}
"""The other two divide: `x/y` is the number z with z * y = x modulo the prime, and `//` is the same (Power et al. write
`x / y (mod p) if y is odd, otherwise x - y (mod p)`). Their equations are made from y and z."""
ODD_DIVIDES = "(x//y)if(y%2==1)else(x-y)"
WITHOUT_ZERO = ("x/y", ODD_DIVIDES)
"""Operations that divide by y, which therefore begins with 1."""


def grokking(
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    prime: int = 97,
    operation: str = "x/y",
    training_fraction: float = 0.5,
    val_fraction: float | None = None,
    split_seed: int = 0,
    loss_on: LossOn = "mask",
    prefetch: int = 2,
) -> Splits:
    """All equations `x operation y = z` modulo `prime`, divided at random.

    Every row is one question of 5 tokens, so `context_length` is 5; the target of the last position is the answer.
    training_fraction: of all equations, rounded down; val_fraction: likewise, and the rest is the test split; None: the
    rest is the validation split. split_seed: which equations go where, the same for every `seed` of the training.
    loss_on: `mask` counts the answer only, `all` every token.
    """
    if context_length != ROW:
        raise ValueError(
            f"context_length is {context_length}, but a question of grokking has {ROW} tokens. Set "
            f"training.context_length to {ROW}."
        )
    if loss_on not in ("mask", "all"):
        raise ValueError(f"loss_on is {loss_on!r}, expected 'mask' or 'all'.")
    rows = equations(prime, operation)
    mask = np.array([0] * ROW + [1], np.uint8) if loss_on == "mask" else None
    tables = _divide(rows, training_fraction, val_fraction, split_seed)
    corpus = SyntheticCorpus(f"grokking {operation} mod {prime}", GrokkingTokenizer(prime), tables, mask)
    return corpus.splits(context_length, device_batch_size, rank, world_size, seed=seed, prefetch=prefetch)


def equations(prime: int, operation: str) -> np.ndarray:
    """(N, 6) uint16 ids `<|eos|> x operation y = z` of all x and y below `prime` (y from 1 on where y divides).

    Everything is modulo the prime, also the division `x//y`: the z with z * y = x.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation is {operation!r}, expected one of {', '.join(OPERATIONS)}.")
    tokenizer = GrokkingTokenizer(prime)
    if tokenizer.vocab_size >= 1 << 16:
        raise ValueError(f"prime is {prime}, expected one below {(1 << 16) - tokenizer.first_number}.")
    first = int(operation in WITHOUT_ZERO)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(prime), np.arange(first, prime), indexing="ij"))
    if operation == "x/y":
        x, y, z = x * y, y, x
    elif operation == ODD_DIVIDES:
        x, y, z = np.where(y % 2 == 1, x * y, x), y, np.where(y % 2 == 1, x, x - y)
    else:
        z = RESULTS[operation](x, y)
    numbers = [tokenizer.first_number + number % prime for number in (x, y, z)]
    end, sign, equals = (np.full(len(x), tokenizer.id_of(s)) for s in ("<|eos|>", operation, "="))
    return np.stack([end, numbers[0], sign, numbers[1], equals, numbers[2]], axis=1).astype(np.uint16)


def _divide(rows: np.ndarray, training: float, val: float | None, seed: int) -> dict[str, np.ndarray]:
    first = int(training * len(rows))
    second = len(rows) if val is None else first + int(val * len(rows))
    if not 0 < first < second <= len(rows):
        raise ValueError(
            f"training_fraction {training} and val_fraction {val} of {len(rows)} equations leave one of these splits "
            "without any. Expected numbers above 0 with a sum of at most 1."
        )
    shuffled = rows[random_order(len(rows), seed)]
    tables = {"train": shuffled[:first], "val": shuffled[first:second], "test": shuffled[second:]}
    return {split: table for split, table in tables.items() if len(table)}

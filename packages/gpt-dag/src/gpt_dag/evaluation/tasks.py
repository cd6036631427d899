"""Freshly drawn questions: of every length, and of the kinds of numbers that break arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch

from gpt_dag.evaluation.items import Item
from gpt_dag.stream import STYLES, Law, sample

PER_ITEM = 16
"""Expressions drawn at once for each that is wanted, where most are not kept."""
PATIENCE = 50
"""Rounds of drawing before giving up."""


def draw_items(law: Law, n: int, seed: int, keep: Callable[[Fraction], bool] | None = None) -> list[Item]:
    """n examples of the test split whose answers are kept: no training stream ever emits one of them.

    ValueError if the law hardly ever gives such an answer.
    """
    styles, items = list(STYLES), []
    at_once = n if keep is None else PER_ITEM * n
    for round_ in range(PATIENCE):
        drawn = sample(law, torch.arange(round_ * at_once, (round_ + 1) * at_once), seed, split="test")
        answers = drawn.plans.fractions()
        assert None not in answers, "the stream draws nothing that divides by zero"
        parts = zip(drawn.texts(), answers, drawn.style.tolist(), drawn.plans.steps.tolist(), strict=True)
        for text, answer, style, steps in parts:
            if answer is not None and (keep is None or keep(answer)):
                items.append(Item(text, answer, styles[style], steps))
        if len(items) >= n:
            return items[:n]
    raise ValueError(f"only {len(items)} of {n} expressions found in {PATIENCE * at_once:,}; change the law: {law}")


def length(n: int = 200, seed: int = 0, most: int = 12) -> list[Item]:
    """n of every number of operations from 1 to `most`."""
    return [item for ops in range(1, most + 1) for item in draw_items(Law(ops, ops), n, seed + ops)]


def mixed(n: int = 1000, seed: int = 0) -> list[Item]:
    """1 to 8 operations in all styles."""
    return draw_items(Law(1, 8), n, seed)


def zero(n: int = 200, seed: int = 0) -> list[Item]:
    """The answer is 0."""
    return draw_items(Law(1, 4, p_zero=0.3), n, seed, lambda answer: answer == 0)


def small(n: int = 200, seed: int = 0) -> list[Item]:
    """0 < |answer| < 1/1000."""
    return draw_items(Law(1, 6), n, seed, lambda answer: 0 < abs(answer) < Fraction(1, 1000))


def large(n: int = 200, seed: int = 0) -> list[Item]:
    """|answer| above a million."""
    return draw_items(Law(1, 8), n, seed, lambda answer: abs(answer) > 10**6)


def percent(n: int = 200, seed: int = 0) -> list[Item]:
    """Half of the numbers are percentages."""
    return draw_items(Law(1, 6, p_percent=0.5), n, seed)


TASKS: dict[str, Callable[..., list[Item]]] = {
    "mixed": mixed,
    "length": length,
    "zero": zero,
    "small": small,
    "large": large,
    "percent": percent,
}

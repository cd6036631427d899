"""Exact match: an answer is right if it equals the true one as a fraction. No tolerance, no rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from gpt_dag.evaluation.intervals import Rate
from gpt_dag.evaluation.items import Item

Answerer = Callable[[Sequence[str]], Sequence[Fraction | None]]
"""Texts to answers; None: no answer."""


@dataclass(frozen=True)
class Scores:
    """Items and the answers that were given to them."""

    items: Sequence[Item]
    answers: Sequence[Fraction | None]

    def of(self, kept: Callable[[Item], bool] = lambda item: True) -> Rate:
        """Exact answers among the items that are kept."""
        hits = [answer == item.answer for item, answer in zip(self.items, self.answers, strict=True) if kept(item)]
        return Rate(sum(hits), len(hits))

    def invalid(self, kept: Callable[[Item], bool] = lambda item: True) -> Rate:
        """No answer: counted as wrong in `of`."""
        none = [answer is None for item, answer in zip(self.items, self.answers, strict=True) if kept(item)]
        return Rate(sum(none), len(none))

    def between(self, low: int, high: int) -> Rate:
        """Exact answers among items of so many operations."""
        return self.of(lambda item: item.n_ops is not None and low <= item.n_ops <= high)

    def by_ops(self) -> dict[int, Rate]:
        counts = sorted({item.n_ops for item in self.items if item.n_ops is not None})
        return {n: self.between(n, n) for n in counts}

    def by_style(self) -> dict[str, Rate]:
        names = sorted({item.style for item in self.items})
        return {name: self.of(lambda item, name=name: item.style == name) for name in names}

    def figures(self) -> dict[str, Any]:
        """For the last line of a report. Rates are None where there was nothing to try."""
        rates = {"exact": self.of(), "exact_1_4": self.between(1, 4), "exact_5_8": self.between(5, 8)}
        figures: dict[str, Any] = {name: rate.value for name, rate in rates.items()}
        figures["invalid"] = self.invalid().value
        figures["n"] = len(self.items)
        figures["intervals"] = {name: rate.interval for name, rate in rates.items() if rate.n}
        return figures


def score(answerer: Answerer, items: Sequence[Item]) -> Scores:
    return Scores(items, answerer([item.text for item in items]))

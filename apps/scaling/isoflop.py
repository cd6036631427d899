"""The best size for a compute budget: a parabola through the losses of runs that all took the same FLOPs.

    y = a·x² + b·x + c,   x = log10 of the parameters,   y = validation bits per byte,   x* = −b / 2a

after approach 2 of Hoffmann et al. 2022, arXiv:2203.15556. D*, the tokens at x*, is interpolated between those that the
runs really took: C / 6N would leave the FLOPs of attention out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

UPWARDS = "the parabola has no minimum (a <= 0): the raw minimum is shown"
OUTSIDE = "the parabola's minimum lies outside the sizes that were run: the raw minimum is shown"
FEW = "fewer than three sizes: the raw minimum is shown"


@dataclass(frozen=True)
class Points:
    """Runs of one budget, ordered by size: log10 of parameters and of tokens, and losses. Shapes [runs]."""

    budget: float
    sizes: np.ndarray
    tokens: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, budget: float, params: Sequence[float], tokens: Sequence[float], losses: Sequence[float]) -> Points:
        """From parameters, tokens and bits per byte. ValueError where they are not positive or of equal number."""
        columns = [np.asarray(values, dtype=np.float64) for values in (params, tokens, losses)]
        if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1 or not columns[0].size:
            raise ValueError(f"budget {budget:g}: got {[c.shape for c in columns]}, expected as many of each, and one")
        if not all(np.isfinite(column).all() and (column > 0).all() for column in columns):
            raise ValueError(f"budget {budget:g}: parameters, tokens and losses must be positive and finite")
        order = np.argsort(columns[0], kind="stable")
        size, token, loss = (column[order] for column in columns)
        return cls(float(budget), np.log10(size), np.log10(token), loss)

    @property
    def distinct(self) -> int:
        return len(np.unique(self.sizes))

    def log_tokens_at(self, x: np.ndarray | float) -> Any:
        """log10 of the tokens at log10 sizes, straight lines between the runs; several at one size are averaged."""
        sizes, group = np.unique(self.sizes, return_inverse=True)
        means = np.bincount(group, weights=self.tokens) / np.bincount(group)
        return np.interp(x, sizes, means)


@dataclass(frozen=True)
class Optimum:
    """The best size for one budget. `flag` says why a power law must not use it; None where it may."""

    budget: float
    params: float
    tokens: float
    bpb: float
    runs: int
    curve: tuple[float, float, float] | None
    """(a, b, c) of the parabola in x = log10 of the parameters; None where there is none."""
    flag: str | None

    @property
    def ratio(self) -> float:
        """Tokens per parameter."""
        return self.tokens / self.params


def parabola(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least squares of y over x about the mean of x: coefficients [3] highest first, or [3, n] for y [runs, n]."""
    return np.polyfit(x - x.mean(), y, 2)


def find_optimum(points: Points) -> Optimum:
    """The minimum of the parabola, or the run with the lowest loss and the reason why."""
    if points.distinct < 3:
        return _raw(points, FEW, None)
    a, b, c = (float(value) for value in parabola(points.sizes, points.losses))
    middle = float(points.sizes.mean())
    curve = (a, b - 2 * a * middle, c - b * middle + a * middle * middle)
    if a <= 0:
        return _raw(points, UPWARDS, curve)
    shift = -b / (2 * a)
    x, lowest = middle + shift, c - b * b / (4 * a)
    if not points.sizes[0] <= x <= points.sizes[-1]:  # far outside, where losses lie on a line: no number to show
        return _raw(points, OUTSIDE, curve)
    tokens = 10 ** float(points.log_tokens_at(x))
    return Optimum(points.budget, 10**x, tokens, lowest, len(points.losses), curve, None)


def _raw(points: Points, why: str, curve: tuple[float, float, float] | None) -> Optimum:
    best = int(points.losses.argmin())
    tokens = 10 ** float(points.tokens[best])
    return Optimum(
        points.budget,
        10 ** float(points.sizes[best]),
        tokens,
        float(points.losses[best]),
        len(points.losses),
        curve,
        why,
    )

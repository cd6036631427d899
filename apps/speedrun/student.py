"""Student's t distribution for whole degrees of freedom: intervals of paired differences, p-values of a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple


def cdf(t: float, df: int) -> float:
    """P(T <= t), by the finite series of Abramowitz & Stegun, 26.7.3 and 26.7.4."""
    if df < 1:
        raise ValueError(f"degrees of freedom must be at least 1, got {df}")
    angle = math.atan2(t, math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if df % 2 else (1.0, 0.0)
    for k in range(1 if df % 2 else 0, df - 1, 2):  # exponents 1, 3, ... or 0, 2, ... up to df - 2
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    inside = (angle + sine * total) * 2 / math.pi if df % 2 else sine * total  # P(|T| < t), with t's sign
    return 0.5 + inside / 2


def quantile(probability: float, df: int) -> float:
    """The t that `cdf` gives this probability of, by bisection."""
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies between 0 and 1, got {probability}")
    low, high = -1.0, 1.0
    while cdf(low, df) > probability:
        low *= 2
    while cdf(high, df) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


class Interval(NamedTuple):
    """A mean with its two-sided interval; half is infinite for fewer than two values, the mean of none is NaN."""

    mean: float
    half: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether 0 lies outside."""
        return abs(self.mean) > self.half


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """mean ± t · s / √n"""
    n = len(values)
    if n < 2:
        return Interval(fmean(values) if n else math.nan, math.inf, n)
    return Interval(fmean(values), quantile((1 + level) / 2, n - 1) * stdev(values) / math.sqrt(n), n)


def p_below(values: Sequence[float], target: float) -> float:
    """One-sided t-test: how likely so low a mean is if the true one is `target`. NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan
    spread = stdev(values)
    if not spread:
        return 0.0 if fmean(values) < target else 1.0
    return cdf((fmean(values) - target) / (spread / math.sqrt(n)), n - 1)

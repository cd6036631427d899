"""How the best size and the best number of tokens grow with compute: N* = k·C^a and D* = k'·C^b.

Both are straight lines through log10 of the optima, by ordinary least squares. Where C = 6ND, a + b = 1; attention's
FLOPs, which N does not count, make it differ a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from isoflop import Optimum, Points, find_optimum, parabola

DRAWS, LEVEL = 4000, 0.95


@dataclass(frozen=True)
class PowerLaw:
    """y = coefficient · C^exponent"""

    coefficient: float
    exponent: float

    def at(self, compute: float) -> float:
        return self.coefficient * compute**self.exponent

    @classmethod
    def fit(cls, compute: Sequence[float], values: Sequence[float]) -> PowerLaw:
        """ValueError for fewer than two different amounts of compute."""
        x, y = np.log10(np.asarray(compute, dtype=np.float64)), np.log10(np.asarray(values, dtype=np.float64))
        if len(np.unique(x)) < 2:
            raise ValueError(f"a power law needs two budgets, got {len(np.unique(x))}")
        exponent = float(_slopes(x, y[None])[0])
        return cls(float(10 ** (y.mean() - exponent * x.mean())), exponent)


@dataclass(frozen=True)
class Spread:
    """Percentile intervals [low, high] of the exponents, from drawn losses."""

    a: tuple[float, float]
    b: tuple[float, float]
    kept: int
    """Draws in which every budget used had a minimum inside its sizes."""
    draws: int


@dataclass(frozen=True)
class ScalingLaw:
    """What a study says in one way of counting parameters. The laws are None below two usable budgets."""

    convention: str
    optima: list[Optimum]
    params: PowerLaw | None
    tokens: PowerLaw | None
    over_points: Spread | None
    """The noise of the runs is drawn anew. None where no budget has more than three runs."""
    over_budgets: Spread | None
    """Budgets are drawn as well: also how far they are from one line. None with fewer than three."""

    @property
    def usable(self) -> list[Optimum]:
        return [each for each in self.optima if each.flag is None]

    @property
    def middle(self) -> float | None:
        """Geometric mean of the usable budgets."""
        budgets = [each.budget for each in self.usable]
        return float(10 ** fmean(np.log10(budgets))) if budgets else None

    @property
    def ratio_at_middle(self) -> float | None:
        """Tokens per parameter by the two laws, there."""
        if self.params is None or self.tokens is None or self.middle is None:
            return None
        return self.tokens.at(self.middle) / self.params.at(self.middle)

    @property
    def ratio_mean(self) -> float | None:
        ratios = [each.ratio for each in self.usable]
        return fmean(ratios) if ratios else None

    @property
    def ratio_sd(self) -> float | None:
        ratios = [each.ratio for each in self.usable]
        return stdev(ratios) if len(ratios) > 1 else None


def fit_law(convention: str, study: Sequence[Points], *, draws: int = DRAWS, seed: int = 0) -> ScalingLaw:
    """Optimum of every budget, power laws over those that have one, and bootstrap intervals (`draws` 0: none)."""
    optima = [find_optimum(points) for points in study]
    used = [(points, best) for points, best in zip(study, optima, strict=True) if best.flag is None]
    if len({best.budget for _, best in used}) < 2:
        return ScalingLaw(convention, optima, None, None, None, None)
    compute = [best.budget for _, best in used]
    params = PowerLaw.fit(compute, [best.params for _, best in used])
    tokens = PowerLaw.fit(compute, [best.tokens for _, best in used])
    over_points, over_budgets = bootstrap([points for points, _ in used], draws, seed)
    return ScalingLaw(convention, optima, params, tokens, over_points, over_budgets)


def bootstrap(study: Sequence[Points], draws: int, seed: int) -> tuple[Spread | None, Spread | None]:
    """Intervals over points and over budgets; each draw fits every parabola and both lines again.

    Parametric: noise is normal, of one variance for the study, which is drawn from what the residuals leave open,
    S / χ²(ν), with their sum of squares S and ν = Σ (runs − 3). So intervals are as wide as Student's t makes them;
    residuals drawn anew are too few for that (they covered the truth in 80 to 90 % of synthetic studies, not in 95).
    """
    freedom = sum(len(points.losses) - 3 for points in study)
    if draws < 1 or freedom < 1:
        return None, None
    random = np.random.default_rng(seed)
    squares = sum(float(((points.losses - _fitted(points)) ** 2).sum()) for points in study)
    noise = np.sqrt(squares / random.chisquare(freedom, draws))
    drawn = [_optima_of_draws(points, noise, random) for points in study]
    sizes, tokens = (np.stack([each[i] for each in drawn], axis=1) for i in (0, 1))  # [draws, budgets], nan: no minimum
    x = np.log10([points.budget for points in study])
    over_points = _spread(np.broadcast_to(x, sizes.shape), sizes, tokens)
    if len(study) < 3:
        return over_points, None
    chosen = random.integers(len(study), size=sizes.shape)
    take = lambda values: np.take_along_axis(values, chosen, axis=1)
    return over_points, _spread(x[chosen], take(sizes), take(tokens))


def _fitted(points: Points) -> np.ndarray:
    """Losses on the parabola [runs]."""
    return np.polyval(parabola(points.sizes, points.losses), points.sizes - points.sizes.mean())


def _optima_of_draws(points: Points, noise: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the best parameters and tokens [draws], nan where a draw has no minimum inside the sizes.

    noise [draws]: its standard deviation.
    """
    x = points.sizes
    losses = _fitted(points)[:, None] + noise * random.standard_normal((len(x), len(noise)))
    a, b, _ = parabola(x, losses)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = x.mean() - b / (2 * a)
    inside = (a > 0) & (best >= x[0]) & (best <= x[-1])
    best = np.where(inside, best, np.nan)
    return best, np.where(inside, points.log_tokens_at(np.nan_to_num(best)), np.nan)


def _spread(x: np.ndarray, sizes: np.ndarray, tokens: np.ndarray) -> Spread | None:
    """Of lines through [draws, budgets]; draws without a slope are left out."""
    a, b = _slopes(x, sizes), _slopes(x, tokens)
    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 2:
        return None
    return Spread(_interval(a[good]), _interval(b[good]), int(good.sum()), len(a))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares slopes of y [draws, n] over x [n] or [draws, n]; nan where all x of a draw are one."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = (centred**2).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12, (centred * y).sum(axis=-1) / spread, np.nan)

"""How sure a mean of judged answers is."""

from collections.abc import Sequence

import numpy as np


def bootstrap_interval(
    values: Sequence[float], level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of the mean over items drawn with replacement; None for no values.

    values: one per item (of a question with two turns: its mean), since answers to one item are not independent.
    """
    if not values:
        return None
    rng, array = np.random.default_rng(seed), np.asarray(values, dtype=np.float64)
    means = np.concatenate(
        [array[rng.integers(0, len(array), (part, len(array)))].mean(1) for part in _parts(resamples, len(array))]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _parts(resamples: int, size: int) -> list[int]:
    """Resamples at a time, so that the index table stays under a million."""
    each = max(1, min(resamples, 1_000_000 // size))
    return [each] * (resamples // each) + ([resamples % each] if resamples % each else [])

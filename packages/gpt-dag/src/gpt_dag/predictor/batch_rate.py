"""The learning rate of large batches: the seed's square-root rule, as a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable


def batch_factor(learning_rate: float, examples: int, reference: int = 1024, most: float | None = 2e-3) -> float:
    """What to multiply `learning_rate` with: √(examples / reference), as long as the product stays below `most`.

    learning_rate: what is right for `reference` examples a step. most: null: no cap.
    """
    if examples < 1 or reference < 1 or not learning_rate > 0:
        raise ValueError(
            f"expected a positive rate and at least one example, got learning_rate={learning_rate}, "
            f"examples={examples}, reference={reference}"
        )
    factor = math.sqrt(examples / reference)
    return factor if most is None else min(factor, most / learning_rate)


def batch_cosine(
    max_steps: int,
    learning_rate: float,
    examples: int,
    reference: int = 1024,
    most: float | None = 2e-3,
    warmup_frac: float = 0.02,
    end_factor: float = 0.05,
) -> Callable[[int], float]:
    """Linear warm-up over a share of the steps, cosine down to `end_factor`, all scaled by `batch_factor`.

    The rate starts above 0, so that no step is lost.
    """
    scale = batch_factor(learning_rate, examples, reference, most)
    if not 0 <= warmup_frac <= 1 or not 0 <= end_factor <= 1:
        raise ValueError(f"warmup_frac and end_factor lie in [0, 1], got {warmup_frac} and {end_factor}")
    warmup = round(warmup_frac * max_steps)

    def schedule(step: int) -> float:
        if step < warmup:
            return scale * (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, max_steps - warmup))
        return scale * (end_factor + (1 - end_factor) * 0.5 * (1 + math.cos(math.pi * progress)))

    return schedule

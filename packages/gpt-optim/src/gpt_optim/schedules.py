"""Schedules of learning rate, momentum and weight decay: pure functions of the step.

A factory takes the shape of the schedule and returns `schedule(step) -> value`; `step` is the 0-based index of the
optimizer step about to be taken. Those of learning rate and weight decay return multipliers, so that one schedule
serves groups with different base values; `momentum` returns the momentum itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

Schedule = Callable[[int], float]

DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "sqrt": lambda progress: 1.0 - math.sqrt(progress),
}
"""From 1 down to 0 while progress goes from 0 to 1. "sqrt": 1 − √progress (Hägele et al. 2024, arXiv:2405.18392)."""


def _check(max_steps: int, warmup_iters: int, end_factor: float, warmup_offset: int = 0) -> None:
    if max_steps < 0:
        raise ValueError(f"max_steps must not be negative, got {max_steps}")
    if warmup_iters < 0 or warmup_iters > max_steps:
        raise ValueError(
            f"warmup_iters must lie between 0 and max_steps={max_steps}, got {warmup_iters}; "
            "shorten the warm-up or train longer"
        )
    if not 0.0 <= end_factor <= 1.0:
        raise ValueError(f"end_factor is a fraction of the base rate in [0, 1], got {end_factor}")
    if warmup_offset not in (0, 1):
        raise ValueError(f"warmup_offset is 0 (the first rate is 0) or 1 (it is 1/warmup_iters), got {warmup_offset}")


def shortened(iters: int, max_steps: int, most: float | None) -> int:
    """`iters` steps, at most the fraction `most` of `max_steps`, but one if there are any. ValueError: no fraction."""
    if most is None:
        return iters
    if not 0.0 <= most <= 1.0:
        raise ValueError(f"most_warmup is a fraction of max_steps in [0, 1], got {most}")
    return min(iters, max(1, int(most * max_steps)), max_steps)


def _decay(max_steps: int, warmup_iters: int, end_factor: float, warmup_offset: int, shape: str) -> Schedule:
    """Linear warm-up, then the decay of this shape from 1 down to `end_factor`."""
    _check(max_steps, warmup_iters, end_factor, warmup_offset)

    def schedule(step: int) -> float:
        if step < warmup_iters:
            return (step + warmup_offset) / warmup_iters
        if step >= max_steps:
            return end_factor
        return end_factor + (1.0 - end_factor) * DECAYS[shape]((step - warmup_iters) / (max_steps - warmup_iters))

    return schedule


def cosine(
    max_steps: int,
    warmup_iters: int = 0,
    end_factor: float = 0.1,
    warmup_offset: int = 0,
    most_warmup: float | None = None,
) -> Schedule:
    """Cosine decay (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one cycle) after a linear warm-up.

    The warm-up is (step + warmup_offset)/warmup_iters: it starts at 0, or with warmup_offset=1 one step above.
    most_warmup: the fraction of `max_steps` that it is shortened to where it is longer, so that a recipe fits short
    runs too; None: a warm-up longer than the run is an error.
    """
    warmup_iters = shortened(warmup_iters, max_steps, most_warmup)
    return _decay(max_steps, warmup_iters, end_factor, warmup_offset, "cosine")


def linear(max_steps: int, warmup_iters: int = 0, end_factor: float = 0.1, warmup_offset: int = 0) -> Schedule:
    """Linear decay after a linear warm-up; `warmup_offset` as in `cosine`."""
    return _decay(max_steps, warmup_iters, end_factor, warmup_offset, "linear")


def _share(fraction: float, max_steps: int, taken: int) -> int:
    """That fraction of the steps, rounded, up only where the steps that are taken leave room (as in a run of one)."""
    steps = fraction * max_steps
    return min(round(steps), max(int(steps), max_steps - taken))


def constant(
    max_steps: int,
    warmup_iters: int = 0,
    cooldown_iters: int | None = None,
    cooldown_frac: float | None = None,
    end_factor: float = 0.0,
    warmup_offset: int = 0,
    most_warmup: float | None = None,
) -> Schedule:
    """Warm up, hold, cool down linearly (the trapezoid); without a cooldown, hold to the end.

    The cooldown covers the last `cooldown_iters` steps, or `cooldown_frac` of `max_steps`; give one, or neither.
    It starts at 1 without a jump, never goes below `end_factor`, and stays there past `max_steps`. most_warmup: as in
    `cosine`.
    """
    warmup_iters = shortened(warmup_iters, max_steps, most_warmup)
    return warmup_stable_decay(
        max_steps, warmup_iters, cooldown_iters, cooldown_frac, end_factor, warmup_offset, "linear"
    )


def warmup_stable_decay(
    max_steps: int,
    warmup_iters: int = 0,
    cooldown_iters: int | None = None,
    cooldown_frac: float | None = None,
    end_factor: float = 0.0,
    warmup_offset: int = 0,
    shape: str = "sqrt",
) -> Schedule:
    """Warm up, hold, cool down in any shape of `DECAYS` (Hägele et al. 2024, arXiv:2405.18392).

    Arguments as in `constant`, which is this with shape="linear".
    """
    if cooldown_iters is not None and cooldown_frac is not None:
        raise ValueError(f"give cooldown_iters or cooldown_frac, not both: got {cooldown_iters} and {cooldown_frac}")
    if shape not in DECAYS:
        raise ValueError(f"shape must be one of {', '.join(DECAYS)}, got {shape!r}")
    _check(max_steps, warmup_iters, end_factor, warmup_offset)
    cooldown = cooldown_iters if cooldown_iters is not None else _share(cooldown_frac or 0.0, max_steps, warmup_iters)
    if not 0 <= cooldown <= max_steps:
        raise ValueError(f"the cooldown must lie between 0 and max_steps={max_steps} steps, got {cooldown}")
    if warmup_iters + cooldown > max_steps:
        raise ValueError(
            f"warm-up (warmup_iters={warmup_iters}) and cooldown ({cooldown} steps) of the learning rate together "
            f"exceed max_steps={max_steps}; shorten one"
        )

    def schedule(step: int) -> float:
        if cooldown and step >= max_steps - cooldown:
            progress = min(1.0, (step - (max_steps - cooldown)) / cooldown)
            return end_factor + (1.0 - end_factor) * DECAYS[shape](progress)
        return (step + warmup_offset) / warmup_iters if step < warmup_iters else 1.0

    return schedule


def midtraining(
    max_steps: int,
    peak_factor: float = 0.8,
    warmup_frac: float = 0.0,
    cooldown_frac: float = 0.5,
    end_factor: float = 0.0,
) -> Schedule:
    """For a second training: warm up, hold `peak_factor` times the first one's rate, cool down to `end_factor` of that.

    All lengths are fractions of `max_steps`. The defaults are those of nanochat's fine-tuning (July 2026); February's
    mid-training has peak_factor=1, cooldown_frac=0.2.
    """
    if not peak_factor > 0:
        raise ValueError(f"peak_factor multiplies the learning rate, it must be positive; got {peak_factor}")
    if not 0.0 <= warmup_frac <= 1.0:
        raise ValueError(f"warmup_frac is a fraction of max_steps in [0, 1], got {warmup_frac}")
    warmup = int(warmup_frac * max_steps)
    shape = constant(max_steps, warmup, cooldown_frac=cooldown_frac, end_factor=end_factor, warmup_offset=1)
    return lambda step: peak_factor * shape(step)


def lr_range_test(max_steps: int, range_coeff: float = 5.0) -> Schedule:
    """Exponential sweep exp(k(step/M − ½)) for finding a learning rate (Smith 2017, arXiv:1506.01186).

    The factor is exp(−k/2) at step 0, 1 at M/2 and exp(k/2) at M.
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    return lambda step: math.exp(range_coeff * (step / max_steps - 0.5))


def nanogpt(
    learning_rate: float,
    min_lr: float,
    warmup_iters: int,
    max_steps: int,
    lr_decay_iters: int | None = None,
    decay_lr: bool = True,
) -> Schedule:
    """nanoGPT's schedule: warm-up (step+1)/(w+1), cosine down to `min_lr` at `lr_decay_iters`, `min_lr` afterwards.

    `learning_rate` is the base rate that `min_lr` is relative to; `lr_decay_iters` is `max_steps` unless given.
    A run of no more than `warmup_iters` steps is all warm-up. Without `decay_lr` the rate is constant, as for nanoGPT's
    finetuning.
    """
    if not decay_lr:
        return lambda step: 1.0
    decay_iters = max_steps if lr_decay_iters is None else lr_decay_iters
    if not learning_rate > 0 or not 0 <= min_lr <= learning_rate:
        raise ValueError(f"need 0 <= min_lr <= learning_rate, got min_lr={min_lr}, learning_rate={learning_rate}")
    if warmup_iters < 0 or (lr_decay_iters is not None and warmup_iters >= lr_decay_iters):
        raise ValueError(f"need 0 <= warmup_iters < lr_decay_iters={lr_decay_iters}, got warmup_iters={warmup_iters}")
    floor = min_lr / learning_rate

    def schedule(step: int) -> float:
        if step < warmup_iters:
            return (step + 1) / (warmup_iters + 1)
        if step >= decay_iters:
            return floor
        progress = (step - warmup_iters) / (decay_iters - warmup_iters)
        return floor + DECAYS["cosine"](progress) * (1.0 - floor)

    return schedule


def stages(
    max_steps: int,
    factors: Sequence[float] = (1.0, 1.52, 1.73),
    boundaries: Sequence[int] | None = None,
    cooldown_frac: float = 0.55,
    end_factor: float = 0.1,
) -> Schedule:
    """One factor per stage, then a cooldown over the last `cooldown_frac` of `max_steps`, as in the GPT speedrun.

    Stage i begins at `boundaries[i − 1]`; stages are equally long unless these are given. The cooldown goes linearly
    from the current stage's factor to `end_factor`, which is not relative to it: the curve jumps up where a stage with
    a larger factor begins within the cooldown. `end_factor` holds from `max_steps` on.

    The defaults go with batches that grow by 1, 2 and 3 times: 2^0.6 and 3^0.5, rounded.
    """
    _check(max_steps, 0, end_factor)
    if not factors or min(factors) <= 0:
        raise ValueError(f"factors must be positive, one for each stage, got {tuple(factors)}")
    if not 0.0 <= cooldown_frac <= 1.0:
        raise ValueError(f"cooldown_frac is a fraction of max_steps in [0, 1], got {cooldown_frac}")
    if boundaries is None:
        boundaries = [round(max_steps * stage / len(factors)) for stage in range(1, len(factors))]
    edges = [0, *boundaries, max_steps]
    if len(boundaries) != len(factors) - 1 or any(begin >= end for begin, end in pairwise(edges)):
        raise ValueError(
            f"boundaries are the first steps of all stages but the first, increasing, between 0 and {max_steps}: "
            f"{len(factors)} factors need {len(factors) - 1} of them, got {tuple(boundaries)}"
        )
    begin = int(max_steps * (1.0 - cooldown_frac))

    def schedule(step: int) -> float:
        factor = factors[sum(step >= boundary for boundary in boundaries)]
        if step < begin or begin == max_steps:
            return factor
        progress = min(1.0, (step - begin) / (max_steps - begin))
        return factor * (1.0 - progress) + end_factor * progress

    return schedule


def momentum(
    warmup_iters: int = 300,
    start: float = 0.85,
    peak: float = 0.95,
    max_steps: int | None = None,
    cooldown_iters: int = 0,
    end: float = 0.85,
    cooldown_frac: float | None = None,
    most_warmup: float | None = None,
) -> Schedule:
    """Muon's momentum: linear from `start` to `peak` over the first steps, and to `end` over the last `cooldown_iters`.

    The defaults are Muon's own; the GPT speedrun adds max_steps=1555, cooldown_iters=50. nanochat has warmup_iters=400,
    peak=0.97, end=0.90 and a cooldown as long as that of its learning rate. `end` holds from `max_steps` on. With
    `max_steps`, cooldown_frac is the cooldown as a fraction of it, and most_warmup shortens the warm-up as in `cosine`.
    """
    if max_steps is not None:
        warmup_iters = shortened(warmup_iters, max_steps, most_warmup)
        cooldown_iters = cooldown_iters if cooldown_frac is None else _share(cooldown_frac, max_steps, warmup_iters)
    for name, value in (("start", start), ("peak", peak), ("end", end)):
        if not 0.0 <= value < 1.0:
            raise ValueError(f"momentum must lie in [0, 1), got {name}={value}")
    if warmup_iters < 0 or cooldown_iters < 0:
        raise ValueError(f"warm-up and cooldown cannot be negative, got {warmup_iters} and {cooldown_iters} steps")
    if cooldown_iters and max_steps is None:
        raise ValueError(f"a cooldown needs max_steps, the step at which it ends; got cooldown_iters={cooldown_iters}")
    if max_steps is not None and warmup_iters + cooldown_iters > max_steps:
        raise ValueError(
            f"warm-up (warmup_iters={warmup_iters}) and cooldown ({cooldown_iters} steps) of the momentum together "
            f"exceed max_steps={max_steps}; shorten one"
        )

    def schedule(step: int) -> float:
        if step < warmup_iters:
            return start + (peak - start) * step / warmup_iters
        if max_steps is None or not cooldown_iters:
            return peak
        progress = (step - (max_steps - cooldown_iters)) / cooldown_iters
        return peak + (end - peak) * min(1.0, max(0.0, progress))

    return schedule


def weight_decay_linear(max_steps: int) -> Schedule:
    """Weight decay that falls linearly to 0: 1 − step/max_steps."""
    return linear(max_steps, end_factor=0.0)


def weight_decay_cosine(max_steps: int) -> Schedule:
    """Weight decay that falls to 0 along a cosine: ½(1 + cos(π·step/max_steps))."""
    return cosine(max_steps, end_factor=0.0)

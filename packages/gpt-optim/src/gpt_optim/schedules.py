"""Learning-rate schedules: pure functions of the step, as multipliers of each group's base learning rate.

A factory takes the shape of the schedule and returns `schedule(step) -> factor`; `step` is the 0-based index of the
optimizer step about to be taken. Multipliers, not rates, so one schedule serves groups with different base rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def _check(max_steps: int, warmup_iters: int, end_factor: float) -> None:
    if warmup_iters < 0 or warmup_iters > max_steps:
        raise ValueError(
            f"warmup_iters must lie between 0 and max_steps={max_steps}, got {warmup_iters}; "
            "shorten the warm-up or train longer"
        )
    if not 0.0 <= end_factor <= 1.0:
        raise ValueError(f"end_factor is a fraction of the base rate in [0, 1], got {end_factor}")


def _decay(max_steps: int, warmup_iters: int, end_factor: float, shape: Callable[[float], float]) -> Schedule:
    """Linear warm-up from 0, then `shape(progress)` from 1 down to 0, rescaled to end at `end_factor`."""
    _check(max_steps, warmup_iters, end_factor)

    def schedule(step: int) -> float:
        if step < warmup_iters:
            return step / warmup_iters
        if step >= max_steps:
            return end_factor
        return end_factor + (1.0 - end_factor) * shape((step - warmup_iters) / (max_steps - warmup_iters))

    return schedule


def cosine(max_steps: int, warmup_iters: int = 0, end_factor: float = 0.1) -> Schedule:
    """Cosine decay (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one cycle) after a linear warm-up."""
    return _decay(max_steps, warmup_iters, end_factor, lambda p: 0.5 * (1.0 + math.cos(math.pi * p)))


def linear(max_steps: int, warmup_iters: int = 0, end_factor: float = 0.1) -> Schedule:
    """Linear decay after a linear warm-up from 0."""
    return _decay(max_steps, warmup_iters, end_factor, lambda p: 1.0 - p)


def constant(
    max_steps: int,
    warmup_iters: int = 0,
    cooldown_iters: int | None = None,
    cooldown_frac: float | None = None,
    end_factor: float = 0.0,
) -> Schedule:
    """Warm up, hold, cool down linearly (the trapezoid, or warmup-stable-decay: Hägele et al. 2024, arXiv:2405.18392).

    The cooldown covers the last `cooldown_iters` steps, or `cooldown_frac` of `max_steps`; give one, or neither.
    It starts at 1 without a jump, never goes below `end_factor`, and stays there past `max_steps`.
    """
    if cooldown_iters is not None and cooldown_frac is not None:
        raise ValueError(f"give cooldown_iters or cooldown_frac, not both: got {cooldown_iters} and {cooldown_frac}")
    _check(max_steps, warmup_iters, end_factor)
    cooldown = cooldown_iters if cooldown_iters is not None else int((cooldown_frac or 0.0) * max_steps)
    if not 0 <= cooldown <= max_steps:
        raise ValueError(f"the cooldown must lie between 0 and max_steps={max_steps} steps, got {cooldown}")
    if warmup_iters + cooldown > max_steps:
        raise ValueError(
            f"warm-up ({warmup_iters}) and cooldown ({cooldown}) together exceed max_steps={max_steps}; shorten one"
        )

    def schedule(step: int) -> float:
        if cooldown and step >= max_steps - cooldown:
            return end_factor + (1.0 - end_factor) * max(0.0, (max_steps - step) / cooldown)
        return step / warmup_iters if step < warmup_iters else 1.0

    return schedule


def lr_range_test(max_steps: int, range_coeff: float = 5.0) -> Schedule:
    """Exponential sweep exp(k(step/M − ½)) for finding a learning rate (Smith 2017, arXiv:1506.01186).

    The factor is exp(−k/2) at step 0, 1 at M/2 and exp(k/2) at M.
    """
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
    Without `decay_lr` the rate is constant, as for nanoGPT's finetuning.
    """
    if not decay_lr:
        return lambda step: 1.0
    decay_iters = max_steps if lr_decay_iters is None else lr_decay_iters
    if not learning_rate > 0 or not 0 <= min_lr <= learning_rate:
        raise ValueError(f"need 0 <= min_lr <= learning_rate, got min_lr={min_lr}, learning_rate={learning_rate}")
    if warmup_iters >= decay_iters:
        raise ValueError(f"warmup_iters={warmup_iters} must be smaller than lr_decay_iters={decay_iters}")
    floor = min_lr / learning_rate

    def schedule(step: int) -> float:
        if step < warmup_iters:
            return (step + 1) / (warmup_iters + 1)
        if step > decay_iters:
            return floor
        progress = (step - warmup_iters) / (decay_iters - warmup_iters)
        return floor + 0.5 * (1.0 + math.cos(math.pi * progress)) * (1.0 - floor)

    return schedule

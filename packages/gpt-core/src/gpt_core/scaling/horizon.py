"""How long to train: steps from a budget of FLOPs, from tokens per parameter, or from passes over the data."""

from __future__ import annotations

import math
from typing import Literal

DEFAULT_RATIO = 12.0
"""Tokens per parameter (`Counts.scaling`). nanochat's default; compute-optimal is about 10.5 by its measurements."""
FEW_STEPS, MANY_EPOCHS = 250, 20
"""Passes over little data: as many as make so many steps, but no more than so many (measured: docs/midtraining.md)."""


def steps_of_flops(budget: float, flops_per_token: float, batch_tokens: int) -> int:
    """The number of steps whose FLOPs are nearest to `budget`, at least one. ValueError: a number is not positive."""
    if not (budget > 0 and flops_per_token > 0 and batch_tokens > 0):
        raise ValueError(
            f"FLOPs and tokens must be positive, got a budget of {budget:g}, {flops_per_token:g} per token and "
            f"{batch_tokens:,} tokens per step"
        )
    return max(1, round(budget / (flops_per_token * batch_tokens)))


def steps_of_ratio(ratio: float, parameters: int, batch_tokens: int) -> int:
    """The whole steps in ratio · parameters tokens, at least one. ValueError: a number is not positive."""
    if not (ratio > 0 and parameters > 0 and batch_tokens > 0):
        raise ValueError(
            f"tokens and parameters must be positive, got a ratio of {ratio:g}, {parameters:,} parameters and "
            f"{batch_tokens:,} tokens per step"
        )
    return max(1, int(ratio * parameters) // batch_tokens)


def epochs_of(epochs: float | Literal["auto"], epoch_tokens: int, batch_tokens: int) -> float:
    """What `auto` means: one pass, and over little data the fewest that make FEW_STEPS steps, up to MANY_EPOCHS."""
    if epochs != "auto":
        return epochs
    return float(min(MANY_EPOCHS, max(1, math.ceil(FEW_STEPS * batch_tokens / epoch_tokens))))


def steps_of_epochs(epochs: float, epoch_tokens: int, batch_tokens: int) -> int:
    """The whole number of steps nearest to `epochs` passes over `epoch_tokens`, at least one."""
    return max(1, round(epochs * epoch_tokens / batch_tokens))

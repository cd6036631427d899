"""How long to train: steps from a budget of FLOPs, or from tokens per parameter."""

from __future__ import annotations

DEFAULT_RATIO = 12.0
"""Tokens per parameter (`Counts.scaling`). nanochat's default; compute-optimal is about 10.5 by its measurements."""


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

"""Soft caps: smooth bounds on logits, and what their gradients need.

Two forms: `cap · tanh(l / cap)` (Gemma 2, arXiv:2408.00118), a number, and `cap · sigmoid((l + shift) / width)`
(modded-nanogpt's speedrun), a `SigmoidCap`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SigmoidCap(NamedTuple):
    """z = cap · sigmoid((l + shift) / width). The defaults are the speedrun's; z(0) is 15.1974."""

    cap: float = 23.0
    shift: float = 5.0
    width: float = 7.5


Softcap = float | SigmoidCap
"""A number is the bound of the tanh form, 0 for no cap at all."""


def softcap(logits: Tensor, cap: Softcap) -> Tensor:
    """The capped logits, in float32 for half precision and in the dtype of `logits` otherwise. ValueError for a
    cap that is negative, or a `SigmoidCap` that is not positive."""
    softcap_numbers(cap)
    wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if isinstance(cap, SigmoidCap):
        return cap.cap * torch.sigmoid((wide + cap.shift) / cap.width)
    return cap * torch.tanh(wide / cap) if cap else wide


def softcap_numbers(cap: Softcap) -> list[float]:
    """The cap as the schema of an operator can hold it: [], [cap], or [cap, shift, width]. ValueError if it is none."""
    if isinstance(cap, SigmoidCap):
        if cap.cap <= 0 or cap.width <= 0:
            raise ValueError(f"SigmoidCap needs a positive cap and width, got {cap}")
        return [float(x) for x in cap]
    if not cap >= 0:
        raise ValueError(f"softcap must be 0 (off), positive, or a SigmoidCap, got {cap}")
    return [float(cap)] if cap else []


def softcap_from_numbers(numbers: list[float]) -> Softcap:
    """The inverse of `softcap_numbers`."""
    if len(numbers) == 3:
        return SigmoidCap(*numbers)
    return numbers[0] if numbers else 0.0

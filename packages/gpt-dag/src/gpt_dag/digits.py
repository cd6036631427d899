"""Scaled integers as decimal digits and back, exactly: a tensor view of numbers for heads that say one digit each."""

from __future__ import annotations

import torch
from torch import Tensor


class ValueMagnitudeError(ValueError):
    """A number has more digits, before or after the point, than there is room for."""


def to_digits(scaled: Tensor, decimals: Tensor, max_digits: int, max_decimals: int) -> Tensor:
    """(..., max_digits + max_decimals) int64 in 0..9, the highest place first.

    scaled, decimals: (...) int64; the number is scaled / 10^decimals, not negative. max_digits + max_decimals is at
    most 18. Raises ValueMagnitudeError for a number that does not fit exactly; waits for the device to know.
    """
    tens = _powers(max_digits + max_decimals, scaled)
    more = max_decimals - decimals
    up, down = 10 ** more.clamp(0, 18), 10 ** (-more).clamp(0, 18)
    fits = (scaled >= 0) & (scaled % down == 0) & (scaled // down < 10 ** (max_digits + max_decimals) // up)
    if not bool(fits.all()):
        s, d = (t[~fits][0].item() for t in (scaled, torch.broadcast_to(decimals, scaled.shape)))
        raise ValueMagnitudeError(
            f"{s} / 10^{d} does not fit into {max_digits} digits before the point and {max_decimals} after it"
        )
    return (scaled // down * up)[..., None] // tens % 10


def from_digits(digits: Tensor) -> Tensor:
    """(...) int64: the integer with these digits (..., n), n at most 18, the highest place first."""
    return (digits * _powers(digits.shape[-1], digits)).sum(-1)


def _powers(count: int, like: Tensor) -> Tensor:
    """(count,) int64: 10^(count - 1) ... 1."""
    if not 0 < count <= 18:
        raise ValueMagnitudeError(f"int64 holds 1 to 18 digits, got {count}")
    return torch.tensor([10**e for e in reversed(range(count))], device=like.device)

"""Signed arithmetic in two number systems: on ln|v| with a sign (range), and on v itself (a check of the former).

A domain keeps K float64 per value in the last dimension of a state tensor (..., K). No value here is
ever NaN or infinite, and no derivative of a single operation: operations get safe constants where their result will not
be used. A product of many derivatives may pass float64; `held_gradient` ends that where values are mixed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LIMIT = 700.0
"""Largest |ln|v||; e^709 is the end of float64."""
LINEAR_LIMIT = 350.0
"""The same where v itself is kept: the derivative of 1/v must stay within float64 too."""
GENTLE = -1e-3
"""d log(1 - e^d)/dd explodes towards d = 0; the backward pass stops here."""
RESOLUTION = 64 * torch.finfo(torch.float64).eps
"""A difference this small beside its operands is taken for rounding: the result is 0. So are the few true differences
below it: 9999.9999 * 9999.9997 - 9999.9998 * 9999.9998 is -1e-8, and 0 here. Exact values are `Plans.fractions`."""


class LogDomain:
    """State: sign in {-1, 0, 1} and ln|v|, the latter 0 and never looked at where the sign is 0."""

    limit = LIMIT

    @staticmethod
    def enter(sign: Tensor, log: Tensor) -> Tensor:
        return torch.stack((sign, torch.where(sign == 0, 0.0, log)), -1)

    @staticmethod
    def leave(state: Tensor) -> tuple[Tensor, Tensor]:
        sign, log = state.unbind(-1)
        return sign, log

    @staticmethod
    def negate(state: Tensor) -> Tensor:
        sign, log = state.unbind(-1)
        return torch.stack((-sign, log), -1)

    @staticmethod
    def add(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(state, overflow)"""
        (sign_x, log_x), (sign_y, log_y) = x.unbind(-1), y.unbind(-1)
        x_larger = log_x >= log_y
        high, low = torch.where(x_larger, log_x, log_y), torch.where(x_larger, log_y, log_x)
        gap = low - high  # <= 0
        same = sign_x == sign_y
        gone = ~same & (gap >= -RESOLUTION * (1 + high.abs()))  # the logarithms carry an error of that size
        log = high + torch.where(same, torch.log1p(gap.exp()), _LogOneMinusExp.apply(torch.where(gone, -1.0, gap)))
        sign = torch.where(x_larger, sign_x, sign_y)
        sign, log = torch.where(gone, 0.0, sign), torch.where(gone, 0.0, log)
        only_x, only_y = sign_y == 0, sign_x == 0
        sign = torch.where(only_x, sign_x, torch.where(only_y, sign_y, sign))
        log = torch.where(only_x, log_x, torch.where(only_y, log_y, log))
        return _bounded(sign, log)

    @staticmethod
    def multiply(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (sign_x, log_x), (sign_y, log_y) = x.unbind(-1), y.unbind(-1)
        return _bounded(sign_x * sign_y, log_x + log_y)

    @staticmethod
    def divide(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x / 0 is 0 here; the caller says that it is invalid."""
        (sign_x, log_x), (sign_y, log_y) = x.unbind(-1), y.unbind(-1)
        return _bounded(sign_x * sign_y, log_x - log_y)

    @staticmethod
    def squash(state: Tensor) -> Tensor:
        """asinh(v), in which signed values of all sizes can be averaged."""
        sign, log = state.unbind(-1)
        large, small = log.clamp(min=0.0), log.clamp(max=0.0)
        above = large + torch.log1p(torch.sqrt(1 + torch.exp(-2 * large)))
        return sign * torch.where(log > 0, above, torch.asinh(small.exp()))

    @staticmethod
    def unsquash(squashed: Tensor) -> Tensor:
        size = squashed.abs()
        some = size > 0
        size = torch.where(some, size, 1.0)
        log = size - torch.log(torch.full_like(size, 2.0)) + torch.log(-torch.expm1(-2 * size))
        return _bounded(torch.where(some, squashed.sign(), 0.0), log)[0]


class LinearDomain:
    """State: v itself."""

    limit = LINEAR_LIMIT

    @staticmethod
    def enter(sign: Tensor, log: Tensor) -> Tensor:
        return (sign * log.exp())[..., None]

    @staticmethod
    def leave(state: Tensor) -> tuple[Tensor, Tensor]:
        value = state[..., 0]
        zero = value == 0
        return value.detach().sign(), torch.where(zero, 0.0, torch.where(zero, 1.0, value).abs().log())

    @staticmethod
    def negate(state: Tensor) -> Tensor:
        return -state

    @staticmethod
    def add(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        total = x + y
        gone = (total.abs() <= RESOLUTION * torch.maximum(x.abs(), y.abs())) & (x * y.sign() != 0)
        return _within_range(torch.where(gone, 0.0, total))

    @staticmethod
    def multiply(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _scaled(x, y, 1)

    @staticmethod
    def divide(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        state, overflow = _scaled(x, torch.where(y == 0, 1.0, y), -1)
        return torch.where(y == 0, 0.0, state), overflow & (y[..., 0] != 0)

    @staticmethod
    def squash(state: Tensor) -> Tensor:
        return LogDomain.squash(LogDomain.enter(*LinearDomain.leave(state)))

    @staticmethod
    def unsquash(squashed: Tensor) -> Tensor:
        return squashed.clamp(-LINEAR_LIMIT, LINEAR_LIMIT).sinh()[..., None]


DOMAINS: dict[str, Any] = {"log": LogDomain, "linear": LinearDomain}


def _bounded(sign: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
    """The state of a value in the log domain, held within the limit."""
    live = sign != 0
    log = torch.where(live, log, 0.0)
    return torch.stack((sign, log.clamp(-LIMIT, LIMIT)), -1), live & (log.abs() > LIMIT)


def _within_range(value: Tensor) -> tuple[Tensor, Tensor]:
    most = torch.full_like(value, LINEAR_LIMIT).exp()
    return value.clamp(-most, most), (value.abs() > most)[..., 0]


def _scaled(x: Tensor, y: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """x·y or, with power -1 and y not 0, x/y; held at the limit."""
    zero = (x == 0) | (y == 0)
    log = torch.where(zero, 1.0, x.detach()).abs().log() + power * torch.where(zero, 1.0, y.detach()).abs().log()
    overflow = ~zero & (log.abs() > LINEAR_LIMIT)
    factor = torch.where(overflow, 1.0, y)
    result = torch.where(overflow, 1.0, x) * (factor if power == 1 else factor.reciprocal())
    edge = (x.sign() * y.sign() * (LINEAR_LIMIT * log.sign()).exp()).detach()
    return torch.where(overflow, edge, result), overflow[..., 0]


def held_gradient(tensor: Tensor, most: float) -> Tensor:
    """The tensor itself; backward, entries of its gradient beyond ±`most` are held there."""
    return _HeldGradient.apply(tensor, most)


class _HeldGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, most: float) -> Tensor:
        ctx.most = most
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].clamp(-ctx.most, ctx.most), None


class _LogOneMinusExp(torch.autograd.Function):
    """log(1 - e^d) for d < 0: exact forward; backward as if d were at most `GENTLE`."""

    @staticmethod
    def forward(ctx: Any, gap: Tensor) -> Tensor:
        ctx.save_for_backward(gap)
        # two forms: log1p loses digits near d = 0, expm1 far below (Mächler 2012, the R package Rmpfr's note)
        near = gap > -0.6931471805599453
        return torch.where(near, torch.log(-torch.expm1(gap)), torch.log1p(-gap.exp()))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gap,) = ctx.saved_tensors
        return grads[0] / -torch.expm1(-gap.clamp(max=GENTLE))

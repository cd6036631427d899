"""Cross-entropy of soft-capped logits in two halves, so that its gradient can be made in 8 bits for an FP8 product.

Autograd hands a gradient on in the dtype of the tensor it belongs to, so who wants it in float8 calls the second half.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), V vocabulary.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from .cross_entropy_rows import (
    LossOptions,
    RowLoss,
    gradient,
    gradient_reference,
    losses_and_lse,
    losses_and_lse_reference,
    row_loss,
    rows_backend,
)
from .softcap import SigmoidCap

SPEEDRUN_CAP = SigmoidCap()


def softcapped_cross_entropy(logits: Tensor, targets: Tensor, **options: Unpack[LossOptions]) -> tuple[Tensor, Tensor]:
    """(losses, lse) of every row, both (..., T) and float32 (float64 for float64).

    losses: as `cross_entropy(..., reduction="none")`, which explains the arguments and options, here with the
    speedrun's `SigmoidCap()` unless another softcap is given; differentiable. lse: the log-sum-exp of the capped
    logits, a constant, for `softcapped_cross_entropy_backward`. Raises ValueError as `cross_entropy` does.
    """
    logits_NV, loss = _rows(logits, targets, options)
    losses_N, lse_N = losses_and_lse(logits_NV, loss)
    return losses_N.view(targets.shape), lse_N.view(targets.shape)


def softcapped_cross_entropy_reference(
    logits: Tensor, targets: Tensor, **options: Unpack[LossOptions]
) -> tuple[Tensor, Tensor]:
    """The definition of `softcapped_cross_entropy`."""
    losses_N, lse_N = losses_and_lse_reference(*_rows(logits, targets, options))
    return losses_N.view(targets.shape), lse_N.view(targets.shape)


def softcapped_cross_entropy_backward(
    grad: Tensor,
    lse: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    grad_dtype: torch.dtype | None = None,
    grad_scale: float = 1.0,
    **options: Unpack[LossOptions],
) -> Tensor:
    """Gradient by the logits divided by `grad_scale`, in `grad_dtype` (None: the dtype of logits); (..., T, V).

    grad (..., T) is that of the losses, lse (..., T) what the first half returned; the other arguments are the same as
    there. Not differentiable. grad_dtype may be torch.float8_e5m2 or float8_e4m3fn: what exceeds their range saturates.
    An e5m2 value has two bits of mantissa: it is within 12.5 % of the exact gradient where that exceeds
    2⁻¹⁴ · grad_scale, and below 2⁻¹⁷ · grad_scale it is zero. Raises ValueError as `cross_entropy` does.
    """
    _check_backward(grad, lse, targets, grad_dtype, grad_scale)
    logits_NV, loss = _rows(logits.detach(), targets, options)
    grad_N, lse_N = grad.detach().reshape(-1), lse.reshape(-1)
    return gradient(grad_N, lse_N, logits_NV, loss, grad_dtype or logits.dtype, grad_scale).view(logits.shape)


def softcapped_cross_entropy_backward_reference(
    grad: Tensor,
    lse: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    grad_dtype: torch.dtype | None = None,
    grad_scale: float = 1.0,
    **options: Unpack[LossOptions],
) -> Tensor:
    """The definition of `softcapped_cross_entropy_backward`."""
    logits_NV, loss = _rows(logits, targets, options)
    dtype = grad_dtype or logits.dtype
    return gradient_reference(grad.reshape(-1), lse.reshape(-1), logits_NV, loss, dtype, grad_scale).view(logits.shape)


def softcapped_cross_entropy_backend(logits: Tensor) -> str:
    """What runs for these logits: "triton" or "torch", as `cross_entropy_backend`."""
    return rows_backend(logits)


def _rows(logits: Tensor, targets: Tensor, options: LossOptions) -> tuple[Tensor, RowLoss]:
    options = {"softcap": SPEEDRUN_CAP, **options}
    return logits.reshape(-1, logits.shape[-1]), row_loss(logits.shape, logits, targets, **options)


def _check_backward(
    grad: Tensor, lse: Tensor, targets: Tensor, grad_dtype: torch.dtype | None, grad_scale: float
) -> None:
    if not grad_scale > 0:
        raise ValueError(f"grad_scale must be positive, got {grad_scale}")
    if grad.shape != targets.shape or lse.shape != targets.shape:
        raise ValueError(
            f"grad and lse must have the shape of targets {tuple(targets.shape)}, got {tuple(grad.shape)} and "
            f"{tuple(lse.shape)}; lse is what softcapped_cross_entropy returned"
        )
    if grad_dtype is not None and not grad_dtype.is_floating_point:
        raise ValueError(f"grad_dtype must be a float dtype, got {grad_dtype}")

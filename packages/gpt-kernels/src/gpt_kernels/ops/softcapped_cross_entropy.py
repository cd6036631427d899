"""Cross-entropy of soft-capped logits in two halves, so that its gradient can be made in 8 bits for an FP8 product.

Autograd hands a gradient on in the dtype of the tensor it belongs to, so who wants it in float8 calls the second half.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), V vocabulary, K targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cross_entropy import (
    IGNORE,
    check_arguments,
    counted_weights,
    cross_entropy_backend,
    losses_of_rows,
    target_weight_tensor,
    targets_of_rows,
)
from .fp8 import saturating_cast
from .softcap import SigmoidCap, Softcap, softcap, softcap_numbers

SPEEDRUN_CAP = SigmoidCap()


def softcapped_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = SPEEDRUN_CAP,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(losses, lse) of every row, both (..., T) and float32 (float64 for float64).

    losses: as `cross_entropy(..., reduction="none")`, which explains the arguments; differentiable. lse: the
    log-sum-exp of the capped logits, a constant, for `softcapped_cross_entropy_backward`.
    """
    check_arguments(logits.shape[:-1], targets, softcap, z_loss, "none")
    weights_K = target_weight_tensor(target_weights, logits)
    targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    logits_NV = logits.reshape(-1, logits.shape[-1])
    losses_N, lse_N = losses_and_lse_of_rows(logits_NV, targets_NK, weights_K, softcap, ignore_index, z_loss)
    return losses_N.view(targets.shape), lse_N.view(targets.shape)


def softcapped_cross_entropy_backward(
    grad: Tensor,
    lse: Tensor,
    logits: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = SPEEDRUN_CAP,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    grad_dtype: torch.dtype | None = None,
    grad_scale: float = 1.0,
) -> Tensor:
    """Gradient by the logits divided by `grad_scale`, in `grad_dtype` (None: the dtype of logits); (..., T, V).

    grad (..., T) is that of the losses, lse (..., T) what the first half returned; the other arguments are the same as
    there. Not differentiable. grad_dtype may be torch.float8_e5m2 or float8_e4m3fn: what exceeds their range saturates.
    An e5m2 value has two bits of mantissa: it is within 12.5 % of the exact gradient where that exceeds
    2⁻¹⁴ · grad_scale, and below 2⁻¹⁷ · grad_scale it is zero.
    """
    check_arguments(logits.shape[:-1], targets, softcap, z_loss, "none")
    if not grad_scale > 0:
        raise ValueError(f"grad_scale must be positive, got {grad_scale}")
    weights_K = target_weight_tensor(target_weights, logits)
    targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    logits_NV = logits.detach().reshape(-1, logits.shape[-1])
    grad_N, lse_N = grad.detach().reshape(-1), lse.reshape(-1)
    gradient_NV = gradient_of_rows(
        grad_N,
        lse_N,
        logits_NV,
        targets_NK,
        weights_K,
        softcap,
        ignore_index,
        z_loss,
        grad_dtype or logits.dtype,
        grad_scale,
    )
    return gradient_NV.view(logits.shape)


def softcapped_cross_entropy_backend(logits: Tensor) -> str:
    """What runs for these logits: "triton" or "torch", as `cross_entropy_backend`."""
    return cross_entropy_backend(logits)


def losses_and_lse_of_rows(
    logits_NV: Tensor, targets_NK: Tensor, weights_K: Tensor, cap: Softcap, ignore_index: int, z_loss: float
) -> tuple[Tensor, Tensor]:
    """The first half on rows, by the backend that the logits choose."""
    if cross_entropy_backend(logits_NV) == "triton":
        from ..triton.cross_entropy import cross_entropy_losses

        return cross_entropy_losses(logits_NV, targets_NK, weights_K, softcap_numbers(cap), ignore_index, z_loss)
    return softcapped_cross_entropy_reference(logits_NV, targets_NK, weights_K, cap, ignore_index, z_loss)


def gradient_of_rows(
    grad_N: Tensor,
    lse_N: Tensor,
    logits_NV: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: Softcap,
    ignore_index: int,
    z_loss: float,
    dtype: torch.dtype,
    grad_scale: float,
) -> Tensor:
    """The second half on rows, by the backend that the logits choose."""
    options = (ignore_index, z_loss, dtype, grad_scale)
    if cross_entropy_backend(logits_NV) == "triton":
        from ..triton.cross_entropy import cross_entropy_gradient

        numbers = softcap_numbers(cap)
        return cross_entropy_gradient(grad_N, lse_N, logits_NV, targets_NK, weights_K, numbers, *options)
    return softcapped_cross_entropy_backward_reference(grad_N, lse_N, logits_NV, targets_NK, weights_K, cap, *options)


def softcapped_cross_entropy_reference(
    logits_NV: Tensor, targets_NK: Tensor, weights_K: Tensor, cap: Softcap, ignore_index: int, z_loss: float
) -> tuple[Tensor, Tensor]:
    """The definition of the first half: (N,) losses and (N,) log-sum-exp."""
    z_NV = softcap(logits_NV, cap)
    lse_N1 = z_NV.logsumexp(-1, keepdim=True)
    weights_NK = counted_weights(targets_NK, weights_K, ignore_index, z_NV)
    return losses_of_rows(z_NV, lse_N1, targets_NK, weights_NK, z_loss), lse_N1.detach().squeeze(1)


@torch.no_grad()
def softcapped_cross_entropy_backward_reference(
    grad_N: Tensor,
    lse_N: Tensor,
    logits_NV: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: Softcap,
    ignore_index: int,
    z_loss: float,
    dtype: torch.dtype,
    grad_scale: float,
) -> Tensor:
    """The definition of the second half, (N, V): with S the sum of the weights that count,
    grad · dz/dl · (S (1 + 2 z_loss LSE) softmax(z) − Σ_k w_k onehot(target_k)) / grad_scale."""
    z_NV = softcap(logits_NV, cap)
    weights_NK = counted_weights(targets_NK, weights_K, ignore_index, z_NV)
    lse_N1 = lse_N[:, None]
    dz_NV = weights_NK.sum(1, keepdim=True) * (1 + 2 * z_loss * lse_N1) * (z_NV - lse_N1).exp()
    dz_NV = dz_NV.scatter_add(1, torch.where(weights_NK != 0, targets_NK, 0), -weights_NK)
    if isinstance(cap, SigmoidCap):
        dz_NV = dz_NV * z_NV * (1 - z_NV / cap.cap) / cap.width
    elif cap:
        dz_NV = dz_NV * (1 - (z_NV / cap).square())
    return saturating_cast(dz_NV * (grad_N[:, None] / grad_scale), dtype)

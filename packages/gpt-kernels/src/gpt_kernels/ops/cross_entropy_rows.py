"""Loss and gradient of a few rows of logits, as the chunks of `linear_cross_entropy` need them.

Dimensions: R rows, V vocabulary, K targets per row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cross_entropy import counted_weights, cross_entropy_backend, losses_of_rows
from .softcap import SigmoidCap, softcap, softcap_from_numbers
from .softcapped_cross_entropy import gradient_of_rows, losses_and_lse_of_rows


def forward_rows(
    logits_RV: Tensor, targets_RK: Tensor, weights_K: Tensor, cap: list[float], ignore_index: int, z_loss: float
) -> tuple[Tensor, Tensor]:
    """(R,) losses and (R,) log-sum-exp."""
    form = softcap_from_numbers(cap)
    if cross_entropy_backend(logits_RV) == "triton":
        return losses_and_lse_of_rows(logits_RV, targets_RK, weights_K, form, ignore_index, z_loss)
    z_RV = softcap(logits_RV, form)
    _, lse_R1 = _softmax_and_lse(z_RV)
    weights_RK = counted_weights(targets_RK, weights_K, ignore_index, z_RV)
    return losses_of_rows(z_RV, lse_R1, targets_RK, weights_RK, z_loss), lse_R1.squeeze(1)


def forward_backward_rows(
    grad_R: Tensor | None,
    logits_RV: Tensor,
    targets_RK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(R,) losses, (R,) log-sum-exp and (R, V) the gradient of the losses by the logits, in the dtype of these."""
    form = softcap_from_numbers(cap)
    if cross_entropy_backend(logits_RV) == "triton":
        losses_R, lse_R = losses_and_lse_of_rows(logits_RV, targets_RK, weights_K, form, ignore_index, z_loss)
        grad_R = torch.ones_like(losses_R) if grad_R is None else grad_R
        options = (targets_RK, weights_K, form, ignore_index, z_loss, logits_RV.dtype, 1.0)
        return losses_R, lse_R, gradient_of_rows(grad_R, lse_R, logits_RV, *options)
    z_RV = softcap(logits_RV, form)
    weights_RK = counted_weights(targets_RK, weights_K, ignore_index, z_RV)
    p_RV, lse_R1 = _softmax_and_lse(z_RV)
    losses_R = losses_of_rows(z_RV, lse_R1, targets_RK, weights_RK, z_loss)
    sum_R1 = weights_RK.sum(-1, keepdim=True)
    if z_loss:
        sum_R1 = sum_R1 * (1 + 2 * z_loss * lse_R1)
    if grad_R is not None:
        sum_R1, weights_RK = sum_R1 * grad_R[:, None], weights_RK * grad_R[:, None]
    p_RV.mul_(sum_R1)
    p_RV.scatter_add_(1, targets_RK.masked_fill(targets_RK == ignore_index, 0), -weights_RK)
    if isinstance(form, SigmoidCap):  # slope z (1 - z / cap) / width
        p_RV.mul_(z_RV)
        p_RV.mul_(z_RV.mul_(-1 / form.cap).add_(1).mul_(1 / form.width))
    elif form:  # slope 1 - (z / cap)²
        p_RV.addcmul_(p_RV, z_RV.square_(), value=-1 / form**2)
    return losses_R, lse_R1.squeeze(1), p_RV.to(logits_RV.dtype)


def _softmax_and_lse(z_RV: Tensor) -> tuple[Tensor, Tensor]:
    """(R, V) and (R, 1). The largest probability is 1 / Σ exp(z - max z): one reduction, where torch.logsumexp, on a
    CPU, makes the exponentials in passes of their own."""
    p_RV = z_RV.softmax(-1)
    return p_RV, z_RV.amax(-1, keepdim=True) - p_RV.amax(-1, keepdim=True).log()

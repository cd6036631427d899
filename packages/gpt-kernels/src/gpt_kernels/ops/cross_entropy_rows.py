"""What all cross-entropies share: how a row's targets count, and the loss and its gradient for rows of logits.

The public functions turn their arguments into a `RowLoss` and rows of logits; everything below works on these two.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), V vocabulary, K targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import fits_triton
from .fp8 import kernels_write, saturating_cast
from .softcap import SigmoidCap, Softcap, softcap, softcap_from_numbers, softcap_numbers

IGNORE = -100
Reduction = Literal["mean", "sum", "none"]


class LossOptions(TypedDict, total=False):
    """Keywords that all cross-entropies take; `cross_entropy` explains them."""

    target_weights: Tensor | Sequence[float] | None
    extra_targets: Tensor | None
    softcap: Softcap
    ignore_index: int
    z_loss: float


class RowLoss(NamedTuple):
    """The loss of N rows, but for their logits. Operators take it apart: operator(logits, *loss)."""

    targets_NK: Tensor
    """int64; those beyond the end of their sequence are ignore_index."""

    weights_K: Tensor
    """float32, float64 for float64 logits."""

    cap: list[float]
    """As `softcap_numbers` gives it."""

    ignore_index: int
    z_loss: float

    def of_rows(self, rows: slice) -> RowLoss:
        return self._replace(targets_NK=self.targets_NK[rows])

    def counted(self, dtype: torch.dtype) -> Tensor:
        """(N, K) weight of every target, 0 for those ignored."""
        return self.weights_K.to(dtype) * (self.targets_NK != self.ignore_index)


def row_loss(
    shape: tuple[int, ...],
    like: Tensor,
    targets: Tensor,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = 0.0,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    extra_targets: Tensor | None = None,
) -> RowLoss:
    """The arguments of a cross-entropy of logits (..., T, V) of this shape, checked: ValueError if they make no sense.

    like   a tensor of the dtype and on the device that the logits have.
    """
    if not like.is_floating_point():
        raise ValueError(f"a cross-entropy needs logits of a float dtype, got {like.dtype}")
    if targets.shape != shape[:-1] or targets.dim() < 1:
        needed = tuple(shape[:-1]) or "at least one dimension"
        raise ValueError(f"targets must be (..., T) for rows (..., T): got {tuple(targets.shape)}, expected {needed}")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be integers, got {targets.dtype}; pass targets.long()")
    if not z_loss >= 0:
        raise ValueError(f"z_loss is a weight, 0 (off) or positive, got {z_loss}")
    cap = softcap_numbers(softcap)
    weights = [1.0] if target_weights is None else target_weights
    weights_K = torch.as_tensor(weights, dtype=wide_dtype(like), device=like.device)
    if weights_K.dim() != 1 or not len(weights_K):
        raise ValueError(f"target_weights must be a vector of at least one weight, got shape {tuple(weights_K.shape)}")
    if weights_K.requires_grad:
        raise ValueError("target_weights are constants: no gradient is worked out for them; detach them")
    _check_range(targets, shape[-1], ignore_index)
    if extra_targets is None:
        targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    else:
        _check_extra(extra_targets, targets, len(weights_K))
        _check_range(extra_targets, shape[-1], ignore_index)
        shifted_NK = targets_of_rows(targets, len(weights_K) - 1, ignore_index)
        targets_NK = torch.cat((shifted_NK, extra_targets.long().reshape(-1, 1)), 1)
    return RowLoss(targets_NK, weights_K, cap, ignore_index, float(z_loss))


def _check_extra(extra_targets: Tensor, targets: Tensor, weights: int) -> None:
    if extra_targets.shape != targets.shape or extra_targets.is_floating_point() or extra_targets.dtype == torch.bool:
        raise ValueError(
            f"extra_targets must be integers of the shape of targets {tuple(targets.shape)}, got {extra_targets.dtype} "
            f"{tuple(extra_targets.shape)}"
        )
    if weights < 2:
        raise ValueError(f"extra_targets have the last of at least two target_weights, got {weights}")


def check_reduction(reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _check_range(targets: Tensor, V: int, ignore_index: int) -> None:
    """On CPUs in eager mode. A GPU would have to be waited for: its kernel makes the loss of such a row nan."""
    if type(targets) is not Tensor or targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    wrong = (targets != ignore_index) & ((targets < 0) | (targets >= V))
    if wrong.any():
        found = targets[wrong][0].item()
        raise ValueError(
            f"targets must be from 0 to {V - 1}, or {ignore_index} to be ignored, got {found} "
            f"({int(wrong.sum())} of {targets.numel()} are out of range): does the tokenizer fit the head?"
        )


def targets_of_rows(targets: Tensor, K: int, ignore_index: int) -> Tensor:
    """(N, K) int64: the targets of every row; ignore_index beyond the end of its sequence."""
    targets = targets.long()
    if K == 1:
        return targets.reshape(-1, 1)
    T = targets.shape[-1]
    padded = F.pad(targets, (0, K - 1), value=ignore_index)
    return torch.stack([padded[..., k : k + T] for k in range(K)], -1).reshape(-1, K)


def wide_dtype(x: Tensor) -> torch.dtype:
    """What losses are added up in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def rows_backend(logits: Tensor) -> str:
    """What computes losses and gradients: "triton" (logits are a plain CUDA tensor of at most 32 bits) or "torch"."""
    return "triton" if fits_triton(logits) else "torch"


def losses_and_lse(logits_NV: Tensor, loss: RowLoss) -> tuple[Tensor, Tensor]:
    """(N,) losses, differentiable, and (N,) log-sum-exp of the capped logits, a constant."""
    if rows_backend(logits_NV) == "triton":
        from ..triton.cross_entropy import cross_entropy_losses

        return cross_entropy_losses(logits_NV, *loss)
    return losses_and_lse_reference(logits_NV, loss)


def losses_and_lse_reference(logits_NV: Tensor, loss: RowLoss) -> tuple[Tensor, Tensor]:
    """The definition of `losses_and_lse`."""
    z_NV = softcap(logits_NV, softcap_from_numbers(loss.cap))
    lse_N1 = z_NV.logsumexp(-1, keepdim=True)
    return _losses(z_NV, lse_N1, loss), lse_N1.detach().squeeze(1)


def gradient(
    grad_N: Tensor, lse_N: Tensor, logits_NV: Tensor, loss: RowLoss, dtype: torch.dtype, grad_scale: float = 1.0
) -> Tensor:
    """(N, V) of `dtype`: the gradient of Σ grad_N · losses_N by the logits, divided by `grad_scale`, saturating."""
    if rows_backend(logits_NV) == "triton" and kernels_write(dtype, logits_NV.device):
        from ..triton.cross_entropy import cross_entropy_gradient

        return cross_entropy_gradient(grad_N, lse_N, logits_NV, *loss, dtype, grad_scale)
    return gradient_reference(grad_N, lse_N, logits_NV, loss, dtype, grad_scale)


@torch.no_grad()
def gradient_reference(
    grad_N: Tensor, lse_N: Tensor, logits_NV: Tensor, loss: RowLoss, dtype: torch.dtype, grad_scale: float = 1.0
) -> Tensor:
    """The definition of `gradient`: with S the sum of the weights that count,
    grad · dz/dl · (S (1 + 2 z_loss LSE) softmax(z) − Σ_k w_k onehot(target_k)) / grad_scale."""
    cap = softcap_from_numbers(loss.cap)
    z_NV, lse_N1 = softcap(logits_NV, cap), lse_N[:, None]
    weights_NK = loss.counted(z_NV.dtype)
    dz_NV = weights_NK.sum(1, keepdim=True) * (1 + 2 * loss.z_loss * lse_N1) * (z_NV - lse_N1).exp()
    dz_NV = dz_NV.scatter_add(1, torch.where(weights_NK != 0, loss.targets_NK, 0), -weights_NK)
    if isinstance(cap, SigmoidCap):
        dz_NV = dz_NV * z_NV * (1 - z_NV / cap.cap) / cap.width
    elif cap:
        dz_NV = dz_NV * (1 - (z_NV / cap).square())
    return saturating_cast(dz_NV * (grad_N[:, None] / grad_scale), dtype)


def losses_with_gradient(
    logits_NV: Tensor, loss: RowLoss, grad_N: Tensor | None, *, need_gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) losses, (N,) log-sum-exp and `gradient` (grad_N None: ones) in the dtype of the logits, empty where not
    needed; in as few passes as there can be. For logits that need no gradient of autograd's."""
    if rows_backend(logits_NV) == "triton":
        losses_N, lse_N = losses_and_lse(logits_NV, loss)
        if not need_gradient:
            return losses_N, lse_N, logits_NV.new_empty(0)
        grad_N = torch.ones_like(losses_N) if grad_N is None else grad_N
        return losses_N, lse_N, gradient(grad_N, lse_N, logits_NV, loss, logits_NV.dtype)
    cap = softcap_from_numbers(loss.cap)
    z_NV = _capped(logits_NV, cap)
    p_NV = z_NV.softmax(-1)
    # The largest probability is 1 / Σ exp(z - max z): one reduction, where torch.logsumexp, on a CPU, makes the
    # exponentials in passes of their own.
    lse_N1 = z_NV.amax(-1, keepdim=True) - p_NV.amax(-1, keepdim=True).log()
    losses_N, lse_N = _losses(z_NV, lse_N1, loss), lse_N1.squeeze(1)
    if not need_gradient:
        return losses_N, lse_N, logits_NV.new_empty(0)
    weights_NK = loss.counted(z_NV.dtype)
    sum_N1 = weights_NK.sum(-1, keepdim=True)
    if loss.z_loss:
        sum_N1 = sum_N1 * (1 + 2 * loss.z_loss * lse_N1)
    if grad_N is not None:
        sum_N1, weights_NK = sum_N1 * grad_N[:, None], weights_NK * grad_N[:, None]
    width = cap.width if isinstance(cap, SigmoidCap) else 1.0
    p_NV.mul_(sum_N1 / width)
    p_NV.scatter_add_(1, torch.where(weights_NK != 0, loss.targets_NK, 0), weights_NK / -width)
    if isinstance(cap, SigmoidCap):  # slope z (1 - z / cap) / width
        p_NV.mul_(z_NV.addcmul_(z_NV, z_NV, value=-1 / cap.cap))
    elif cap:  # slope 1 - (z / cap)²
        p_NV.addcmul_(p_NV, z_NV.square_(), value=-1 / cap**2)
    return losses_N, lse_N, p_NV.to(logits_NV.dtype)


def _capped(logits_NV: Tensor, cap: Softcap) -> Tensor:
    """`softcap`, and of the speedrun's form in one tensor: autograd need not know."""
    if not isinstance(cap, SigmoidCap) or logits_NV.dtype in (torch.float16, torch.bfloat16):
        return softcap(logits_NV, cap)
    return (logits_NV + cap.shift).div_(cap.width).sigmoid_().mul_(cap.cap)


def _losses(z_NV: Tensor, lse_N1: Tensor, loss: RowLoss) -> Tensor:
    """(N,) losses of capped logits; weights of 0 are targets that do not count, whatever their index."""
    weights_NK = loss.counted(z_NV.dtype)
    counted_NK = weights_NK != 0
    terms_NK = lse_N1 - z_NV.gather(1, torch.where(counted_NK, loss.targets_NK, 0))
    if loss.z_loss:
        terms_NK = terms_NK + loss.z_loss * lse_N1.square()
    # A row that does not count may hold infinities: 0 · inf must not reach the loss.
    return (weights_NK * torch.where(counted_NK, terms_NK, 0.0)).sum(-1)


def reduce_losses(losses: Tensor, targets: Tensor, ignore_index: int, reduction: Reduction) -> Tensor:
    return losses if reduction == "none" else reduce_total(losses.sum(), targets, ignore_index, reduction)


def reduce_total(total: Tensor, targets: Tensor, ignore_index: int, reduction: Reduction) -> Tensor:
    if reduction == "sum":
        return total
    count = (targets != ignore_index).sum()
    # Of no targets the mean is nan, and its gradient 0, as in torch; that of 0 / 0 would be 0 · inf.
    return (total / count.clamp_min(1)).masked_fill(count == 0, float("nan"))

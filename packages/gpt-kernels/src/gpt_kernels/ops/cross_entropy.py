"""Cross-entropy with a soft cap, several targets per row, ignored targets and the z-loss; on logits that are given.

`linear_cross_entropy` is the same without ever holding the logits.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), V vocabulary, K targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import fits_triton
from .softcap import Softcap, softcap, softcap_numbers

IGNORE = -100
Reduction = Literal["mean", "sum", "none"]


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = 0.0,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Σ_k w_k · (CE(z_r, target_{r+k}) + z_loss · LSE(z_r)²) of every row r, where z is the capped logits.

    logits   (..., T, V), any float dtype; the arithmetic is float32 (float64 for float64).
    targets  (..., T) integers. The targets of token r are those of tokens r, r + 1, … of its own sequence (the last
             dimension); those beyond its end do not count.
    target_weights   (K,) the w_k; None is [1], the ordinary loss. A tensor lets them change without recompiling.
    softcap  0 (off), the bound of cap · tanh(l / cap), or a `SigmoidCap`.
    ignore_index   a target that does not count, for any k.
    z_loss   weight of the squared log-partition function (PaLM, arXiv:2204.02311 §5).
    reduction   "none": (..., T), one loss a row. "sum". "mean": the sum over the number of rows whose own target
             (k = 0) counts, so that more targets add to the loss and do not rescale it; nan if there is none, as in
             torch.

    Returns float32 (float64 for float64). Raises ValueError for shapes or options that contradict each other.
    Source: the speedrun's head (modded-nanogpt, records 53 and later) for the weights and the sigmoid cap.
    """
    check_arguments(logits.shape[:-1], targets, softcap, z_loss, reduction)
    if cross_entropy_backend(logits) == "triton":
        from ..triton.cross_entropy import cross_entropy_losses

        weights_K = target_weight_tensor(target_weights, logits)
        targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
        losses_N, _ = cross_entropy_losses(
            logits.reshape(-1, logits.shape[-1]), targets_NK, weights_K, softcap_numbers(softcap), ignore_index, z_loss
        )
        return reduce_losses(losses_N.view(targets.shape), targets, ignore_index, reduction)
    return cross_entropy_reference(
        logits,
        targets,
        target_weights=target_weights,
        softcap=softcap,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
    )


def cross_entropy_backend(logits: Tensor) -> str:
    """What `cross_entropy` runs for these logits: "triton" (a plain CUDA tensor of at most 32 bits) or "torch"."""
    return "triton" if fits_triton(logits) else "torch"


def cross_entropy_reference(
    logits: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = 0.0,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """The definition of `cross_entropy`: plain differentiable PyTorch on any device and any kind of tensor."""
    losses_N = _losses(logits.flatten(0, -2), targets, target_weights, softcap, ignore_index, z_loss)
    return reduce_losses(losses_N.view(targets.shape), targets, ignore_index, reduction)


def _losses(
    logits_NV: Tensor,
    targets: Tensor,
    target_weights: Tensor | Sequence[float] | None,
    cap: Softcap,
    ignore_index: int,
    z_loss: float,
) -> Tensor:
    """(N,)"""
    z_NV = softcap(logits_NV, cap)
    if target_weights is None and not z_loss:  # torch's own is one pass
        return F.cross_entropy(z_NV, targets.flatten().long(), ignore_index=ignore_index, reduction="none")
    weights_K = target_weight_tensor(target_weights, logits_NV)
    targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    weights_NK = counted_weights(targets_NK, weights_K, ignore_index, z_NV)
    return losses_of_rows(z_NV, z_NV.logsumexp(-1, keepdim=True), targets_NK, weights_NK, z_loss)


def losses_of_rows(z_NV: Tensor, lse_N1: Tensor, targets_NK: Tensor, weights_NK: Tensor, z_loss: float) -> Tensor:
    """(N,) losses of capped logits; weights of 0 are targets that do not count, whatever their index."""
    counted_NK = weights_NK != 0
    terms_NK = lse_N1 - z_NV.gather(1, torch.where(counted_NK, targets_NK, 0))
    if z_loss:
        terms_NK = terms_NK + z_loss * lse_N1.square()
    # A row that does not count may hold infinities: 0 · inf must not reach the loss.
    return (weights_NK * torch.where(counted_NK, terms_NK, 0.0)).sum(-1)


def counted_weights(targets_NK: Tensor, weights_K: Tensor, ignore_index: int, like: Tensor) -> Tensor:
    """(N, K) weight of every target in the dtype of `like`, 0 for those ignored."""
    return weights_K.to(like.dtype) * (targets_NK != ignore_index)


def check_arguments(
    rows: tuple[int, ...],
    targets: Tensor,
    cap: Softcap,
    z_loss: float,
    reduction: str,
    dims: str = "logits (..., T, V)",
) -> None:
    """ValueError for what `cross_entropy` and `linear_cross_entropy` refuse alike."""
    if targets.shape != rows or targets.dim() < 1:
        raise ValueError(
            f"targets must be (..., T) for {dims}; got {tuple(targets.shape)} where {tuple(rows)} is needed"
        )
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets must be integers, got {targets.dtype}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if z_loss < 0:
        raise ValueError(f"z_loss is a weight, 0 (off) or positive, got {z_loss}")
    softcap_numbers(cap)


def target_weight_tensor(target_weights: Tensor | Sequence[float] | None, like: Tensor) -> Tensor:
    """(K,) float32, or float64 for float64 inputs; ValueError unless it is a vector of at least one weight."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    weights_K = torch.as_tensor([1.0] if target_weights is None else target_weights, dtype=dtype, device=like.device)
    if weights_K.dim() != 1 or not len(weights_K):
        raise ValueError(f"target_weights must be a vector of at least one weight, got shape {tuple(weights_K.shape)}")
    if weights_K.requires_grad:
        raise ValueError("target_weights are constants: no gradient is worked out for them; detach them")
    return weights_K


def targets_of_rows(targets: Tensor, K: int, ignore_index: int) -> Tensor:
    """(N, K) int64: the targets of every row; ignore_index beyond the end of its sequence."""
    targets = targets.long()
    if K == 1:
        return targets.reshape(-1, 1)
    T = targets.shape[-1]
    padded = F.pad(targets, (0, K - 1), value=ignore_index)
    return torch.stack([padded[..., k : k + T] for k in range(K)], -1).reshape(-1, K)


def reduce_losses(losses: Tensor, targets: Tensor, ignore_index: int, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / (targets != ignore_index).sum()

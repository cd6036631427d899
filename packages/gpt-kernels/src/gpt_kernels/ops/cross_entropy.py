"""Cross-entropy with a soft cap, several targets per row, ignored targets and the z-loss; on logits that are given.

`linear_cross_entropy` is the same without ever holding the logits.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), V vocabulary, K targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch.nn.functional as F
from torch import Tensor

from .cross_entropy_rows import (
    IGNORE,
    LossOptions,
    Reduction,
    check_reduction,
    losses_and_lse,
    losses_and_lse_reference,
    reduce_losses,
    row_loss,
    rows_backend,
)
from .softcap import Softcap
from .softcap import softcap as capped


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    extra_targets: Tensor | None = None,
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
    extra_targets   (..., T), one more target of each row, whatever the others are; its weight is the last w_k.
    softcap  0 (off), the bound of cap · tanh(l / cap), or a `SigmoidCap`.
    ignore_index   a target that does not count, for any k.
    z_loss   weight of the squared log-partition function (PaLM, arXiv:2204.02311 §5).
    reduction   "none": (..., T), one loss a row. "sum". "mean": the sum over the number of rows whose own target
             (k = 0) counts, so that more targets add to the loss and do not rescale it; nan if there is none, with a
             gradient of 0, as in torch.

    Returns float32 (float64 for float64). Raises ValueError for shapes, dtypes or options that contradict each other,
    and for targets out of range on CPUs in eager mode; on a GPU the loss of such a row is nan.
    Source: the speedrun's head (modded-nanogpt, records 53 and later) for the weights and the sigmoid cap.
    """
    options: LossOptions = {
        "target_weights": target_weights,
        "extra_targets": extra_targets,
        "softcap": softcap,
        "ignore_index": ignore_index,
        "z_loss": z_loss,
    }
    if cross_entropy_backend(logits) == "torch":
        return cross_entropy_reference(logits, targets, reduction=reduction, **options)
    check_reduction(reduction)
    loss = row_loss(logits.shape, logits, targets, **options)
    losses_N, _ = losses_and_lse(logits.reshape(-1, logits.shape[-1]), loss)
    return reduce_losses(losses_N.view(targets.shape), targets, ignore_index, reduction)


def cross_entropy_reference(
    logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean", **options: Unpack[LossOptions]
) -> Tensor:
    """The definition of `cross_entropy`: plain differentiable PyTorch on any device and any kind of tensor."""
    check_reduction(reduction)
    loss = row_loss(logits.shape, logits, targets, **options)
    logits_NV = logits.flatten(0, -2)
    if options.get("target_weights") is None and not loss.z_loss:  # torch's own is one pass
        z_NV = capped(logits_NV, options.get("softcap", 0.0))
        losses_N = F.cross_entropy(z_NV, loss.targets_NK.squeeze(1), ignore_index=loss.ignore_index, reduction="none")
    else:
        losses_N, _ = losses_and_lse_reference(logits_NV, loss)
    return reduce_losses(losses_N.view(targets.shape), targets, loss.ignore_index, reduction)


def cross_entropy_backend(logits: Tensor) -> str:
    """What `cross_entropy` runs for these logits: "triton" (a plain CUDA tensor of at most 32 bits) or "torch"."""
    return rows_backend(logits)

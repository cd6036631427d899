"""The head and its loss in one: logits are made, used and dropped a few rows at a time, forward and backward.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), R rows of a chunk, I inputs, V vocabulary, K
targets per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import chunked_cross_entropy as chunked
from .cross_entropy import (
    IGNORE,
    Reduction,
    check_arguments,
    cross_entropy_backend,
    cross_entropy_reference,
    reduce_losses,
    target_weight_tensor,
    targets_of_rows,
)
from .dispatch import autocast_together
from .softcap import Softcap, softcap_numbers
from .softcapped_cross_entropy import softcapped_cross_entropy


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = 0.0,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
    chunk_rows: int | None = None,
) -> Tensor:
    """`cross_entropy(x Wᵀ, targets, …)` without holding x Wᵀ: see there for targets and options.

    x (..., T, I) and weight (V, I) of one float dtype, targets (..., T); a head stored as (I, V) is passed as its
    transposed view. The logits have the dtype of x, what is made of them is float32 (float64 for float64); the gradient
    of the weight is summed in float32. Under autocast x and weight are cast as `F.linear` casts them.

    With reduction "sum" or "mean" the gradients are worked out in the forward pass, beside the loss: three products, as
    many as without chunks. They take the room of x and of a float32 weight until backward. With "none" backward makes
    the logits again: four products. It is differentiable once.

    chunk_rows   rows at a time; None chooses by device and vocabulary.
    """
    return linear_cross_entropy_and_lse(
        x,
        weight,
        targets,
        target_weights=target_weights,
        softcap=softcap,
        ignore_index=ignore_index,
        z_loss=z_loss,
        reduction=reduction,
        chunk_rows=chunk_rows,
    )[0]


def linear_cross_entropy_and_lse(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    softcap: Softcap = 0.0,
    ignore_index: int = IGNORE,
    z_loss: float = 0.0,
    reduction: Reduction = "mean",
    chunk_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, lse): `linear_cross_entropy`, and the log-sum-exp of the capped logits of every row, (..., T), a constant.

    With lse the loss can be reported without its z-loss, which is z_loss · Σ lse² over the targets that count.
    """
    check_arguments(x.shape[:-1], targets, softcap, z_loss, reduction, "x (..., T, I)")
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(f"weight must be (V, {x.shape[-1]}) for x {tuple(x.shape)}, got {tuple(weight.shape)}")
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")
    x, weight = autocast_together(x, weight)
    if x.dtype != weight.dtype:
        raise ValueError(f"x and weight must have one dtype, got {x.dtype} and {weight.dtype}")
    if linear_cross_entropy_backend(x, weight) == "torch":
        losses, lse = softcapped_cross_entropy(
            x @ weight.t(),
            targets,
            target_weights=target_weights,
            softcap=softcap,
            ignore_index=ignore_index,
            z_loss=z_loss,
        )
        loss = reduce_losses(losses, targets, ignore_index, reduction)
        return loss, lse
    weights_K = target_weight_tensor(target_weights, x)
    targets_NK = targets_of_rows(targets, len(weights_K), ignore_index)
    x_NI = x.reshape(-1, x.shape[-1])
    rows = chunk_rows or chunked.rows_per_chunk(len(x_NI), weight)
    options = (softcap_numbers(softcap), ignore_index, z_loss, rows)
    if reduction == "none":
        losses_N, lse_N = _Rows.apply(x_NI, weight, targets_NK, weights_K, *options)
        loss = losses_N.view(targets.shape)
    else:
        grad = torch.is_grad_enabled()
        needs = (grad and x.requires_grad, grad and weight.requires_grad)
        total, lse_N = _Sum.apply(x_NI, weight, targets_NK, weights_K, *options, *needs)
        loss = total if reduction == "sum" else total / (targets != ignore_index).sum()
    return loss, lse_N.view(targets.shape)


def linear_cross_entropy_backend(x: Tensor, weight: Tensor) -> str:
    """What `linear_cross_entropy` runs: "chunked+triton" on CUDA, "chunked" for other plain tensors, else "torch".

    Subclasses such as DTensor, and inputs without rows, take "torch": the reference, with all logits at once.
    """
    if not all(type(t) in (Tensor, torch.nn.Parameter) for t in (x, weight)) or not x.numel():
        return "torch"
    return "chunked+triton" if cross_entropy_backend(x) == "triton" else "chunked"


def linear_cross_entropy_reference(x: Tensor, weight: Tensor, targets: Tensor, **options: Any) -> Tensor:
    """The definition: all logits at once. Options as in `linear_cross_entropy`, but for chunk_rows."""
    return cross_entropy_reference(x @ weight.t(), targets, **options)


class _Sum(torch.autograd.Function):
    """The sum of the losses; its gradients are known when it is."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_VI: Tensor,
        targets_NK: Tensor,
        weights_K: Tensor,
        cap: list[float],
        ignore_index: int,
        z_loss: float,
        rows: int,
        need_x: bool,
        need_weight: bool,
    ) -> tuple[Tensor, Tensor]:
        run = chunked.linear_cross_entropy_sum if torch.compiler.is_compiling() else chunked.sum_of_losses
        total, lse_N, grad_x_NI, grad_weight_VI = run(
            x_NI, weight_VI, targets_NK, weights_K, cap, ignore_index, z_loss, rows, need_x, need_weight
        )
        ctx.save_for_backward(grad_x_NI, grad_weight_VI)
        ctx.weight_dtype = weight_VI.dtype
        ctx.mark_non_differentiable(lse_N)
        return total, lse_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_x_NI, grad_weight_VI = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad[:2]
        # Scaled here and not before: of a mean over many rows, float16 would lose the small probabilities.
        grad_x = grad_x_NI * grad if need_x else None
        grad_weight = (grad_weight_VI * grad).to(ctx.weight_dtype) if need_weight else None
        return grad_x, grad_weight, *[None] * 8


class _Rows(torch.autograd.Function):
    """The loss of every row; backward needs the gradient of each before it can add up that of the weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight_VI: Tensor,
        targets_NK: Tensor,
        weights_K: Tensor,
        cap: list[float],
        ignore_index: int,
        z_loss: float,
        rows: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_NI, weight_VI, targets_NK, weights_K)
        ctx.options = (cap, ignore_index, z_loss, rows)
        run = chunked.linear_cross_entropy_rows if torch.compiler.is_compiling() else chunked.losses_of_chunks
        losses_N, lse_N = run(x_NI, weight_VI, targets_NK, weights_K, *ctx.options)
        ctx.mark_non_differentiable(lse_N)
        return losses_N, lse_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        need_x, need_weight = ctx.needs_input_grad[:2]
        compiling = torch.compiler.is_compiling()
        run = chunked.linear_cross_entropy_rows_backward if compiling else chunked.gradients_of_chunks
        grad_x, grad_weight = run(grad_N.contiguous(), *ctx.saved_tensors, *ctx.options, need_x, need_weight)
        return grad_x if need_x else None, grad_weight if need_weight else None, *[None] * 6

"""The head and its loss in one: logits are made, used and dropped a few rows at a time, forward and backward.

The loop over chunks is one operator, `linear_cross_entropy_chunks`, so that the compiler sees one node. In eager mode
its function runs as it is: the first call of an operator imports the compiler.

Dimensions: T tokens of a sequence, N rows (all tokens of all sequences), R rows of a chunk, I inputs, V vocabulary, K
targets per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from .cross_entropy import cross_entropy_reference
from .cross_entropy_rows import (
    IGNORE,
    LossOptions,
    Reduction,
    RowLoss,
    check_reduction,
    losses_and_lse,
    losses_with_gradient,
    reduce_losses,
    reduce_total,
    row_loss,
    rows_backend,
    wide_dtype,
)
from .derivatives import differentiable_once
from .dispatch import autocast_together, without_autocast
from .softcap import Softcap

CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**28}
"""Logits held at a time: on a CPU as much as keeps the products fast, on a GPU enough to fill it."""

CPU_ROWS = 512
"""Rows at a time on a CPU at most: with a small vocabulary their logits stay in its caches."""


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    target_weights: Tensor | Sequence[float] | None = None,
    extra_targets: Tensor | None = None,
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

    Raises ValueError as `cross_entropy` does, and for a weight that does not fit x.
    """
    options: LossOptions = {
        "target_weights": target_weights,
        "extra_targets": extra_targets,
        "softcap": softcap,
        "ignore_index": ignore_index,
        "z_loss": z_loss,
    }
    return linear_cross_entropy_and_lse(x, weight, targets, reduction=reduction, chunk_rows=chunk_rows, **options)[0]


def linear_cross_entropy_and_lse(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    reduction: Reduction = "mean",
    chunk_rows: int | None = None,
    **options: Unpack[LossOptions],
) -> tuple[Tensor, Tensor]:
    """(loss, lse): `linear_cross_entropy`, and the log-sum-exp of the capped logits of every row, (..., T), a constant.

    With lse the loss can be reported without its z-loss, which is z_loss · Σ lse² over the targets that count.
    """
    check_reduction(reduction)
    check_head(x, weight, chunk_rows)
    x, weight = autocast_together(x, weight)
    if x.dtype != weight.dtype:
        raise ValueError(f"x and weight must have one dtype, got {x.dtype} and {weight.dtype}; cast one of them")
    loss = row_loss((*x.shape[:-1], weight.shape[0]), x, targets, **options)
    if linear_cross_entropy_backend(x, weight) == "torch":
        losses, lse = losses_and_lse((x @ weight.t()).flatten(0, -2), loss)
        losses, lse = losses.view(targets.shape), lse.view(targets.shape)
        return reduce_losses(losses, targets, loss.ignore_index, reduction), lse
    x_NI = x.reshape(-1, x.shape[-1])
    rows = chunk_rows or rows_per_chunk(len(x_NI), weight)
    if reduction == "none":
        losses_N, lse_N = _LossOfRows.apply(x_NI, weight, rows, *loss)
        return losses_N.view(targets.shape), lse_N.view(targets.shape)
    losses_N, lse_N, *known = _in_chunks(x_NI.detach(), weight.detach(), loss, rows, *needs_gradients(x, weight))
    total = TotalWithGradients.apply(losses_N.sum(), x_NI, weight, *known)
    return reduce_total(total, targets, loss.ignore_index, reduction), lse_N.view(targets.shape)


def linear_cross_entropy_backend(x: Tensor, weight: Tensor) -> str:
    """What `linear_cross_entropy` runs: "chunked+triton" on CUDA, "chunked" for other plain tensors, else "torch".

    Subclasses such as DTensor, and inputs without rows, take "torch": the reference, with all logits at once.
    """
    if not all(type(t) in (Tensor, torch.nn.Parameter) for t in (x, weight)) or not x.numel():
        return "torch"
    return "chunked+triton" if rows_backend(x) == "triton" else "chunked"


def linear_cross_entropy_reference(
    x: Tensor, weight: Tensor, targets: Tensor, *, reduction: Reduction = "mean", **options: Unpack[LossOptions]
) -> Tensor:
    """The definition: all logits at once. Options as in `linear_cross_entropy`, but for chunk_rows."""
    return cross_entropy_reference(x @ weight.t(), targets, reduction=reduction, **options)


def check_head(x: Tensor, weight: Tensor, chunk_rows: int | None) -> None:
    if x.dim() < 2:
        raise ValueError(f"x must be (..., T, I), got {tuple(x.shape)}; one token is x[None]")
    if weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        raise ValueError(
            f"weight must be (V, {x.shape[-1]}) for x {tuple(x.shape)}, got {tuple(weight.shape)}; "
            "a head stored as (I, V) is passed as weight.t()"
        )
    if chunk_rows is not None and chunk_rows < 1:
        raise ValueError(f"chunk_rows must be at least 1, got {chunk_rows}")


# --- The loop -------------------------------------------------------------------------------------------------------


def losses_in_chunks(
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
    grad_N: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) losses, (N,) log-sum-exp, and the gradients of Σ grad_N · losses_N (None: of the sum): by x in its dtype, by
    the weight in float32 (float64); those not needed are empty."""
    loss = RowLoss(targets_NK, weights_K, cap, ignore_index, z_loss)
    losses_N, lse_N, grad_x_NI, grad_weight_VI = new_results(x_NI, weight_VI, need_x, need_weight)
    with without_autocast(x_NI):  # a backward inside it would have other logits than the forward pass
        for chunk in chunks(len(x_NI), rows):
            x_RI = x_NI[chunk]
            losses_N[chunk], lse_N[chunk], grad_RV = losses_with_gradient(
                x_RI @ weight_VI.t(),
                loss.of_rows(chunk),
                None if grad_N is None else grad_N[chunk],
                need_gradient=need_x or need_weight,
            )
            if need_x:
                torch.mm(grad_RV, weight_VI, out=grad_x_NI[chunk])
            if need_weight:
                _add_product(grad_weight_VI, grad_RV.t(), x_RI)
            del grad_RV  # before the next chunk's logits are made
    return losses_N, lse_N, grad_x_NI, grad_weight_VI


linear_cross_entropy_chunks = torch.library.custom_op(
    "gpt_kernels::linear_cross_entropy_chunks", losses_in_chunks, mutates_args=()
)


@linear_cross_entropy_chunks.register_fake
def _(
    x_NI: Tensor,
    weight_VI: Tensor,
    t: Any,
    w: Any,
    c: Any,
    i: Any,
    z: Any,
    rows: int,
    need_x: bool,
    need_weight: bool,
    g: Any = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return new_results(x_NI, weight_VI, need_x, need_weight)


def _in_chunks(
    x_NI: Tensor,
    weight_VI: Tensor,
    loss: RowLoss,
    rows: int,
    need_x: bool,
    need_weight: bool,
    grad_N: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    run = linear_cross_entropy_chunks if torch.compiler.is_compiling() else losses_in_chunks
    return run(x_NI, weight_VI, *loss, rows, need_x, need_weight, grad_N)


def rows_per_chunk(N: int, weight_VI: Tensor) -> int:
    """A multiple of 64 that holds at most about `CHUNK_ELEMENTS` logits, and on a CPU 512 rows, on a GPU an eighth of
    all; chunks are about equal, for the products of a small last one are slow."""
    most = CHUNK_ELEMENTS["cuda" if weight_VI.is_cuda else "cpu"] // max(weight_VI.shape[0], 1)
    most = min(most, N // 8 if weight_VI.is_cuda else CPU_ROWS)
    most = max(most // 64 * 64, 64)
    count = max(-(-N // most), 1)
    return max(-(-N // (count * 64)) * 64, 64)


def chunks(N: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, N)) for start in range(0, N, rows))


def new_results(
    x_NI: Tensor, weight_VI: Tensor, need_x: bool, need_weight: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) losses, (N,) log-sum-exp, the gradient by x, and that by the weight, zero, to be added up in float32."""
    dtype = wide_dtype(x_NI)
    losses_N, lse_N = (x_NI.new_empty(len(x_NI), dtype=dtype) for _ in range(2))
    grad_x_NI = torch.empty_like(x_NI, memory_format=torch.contiguous_format) if need_x else x_NI.new_empty(0)
    if need_weight:
        return losses_N, lse_N, grad_x_NI, torch.zeros_like(weight_VI, dtype=dtype)
    return losses_N, lse_N, grad_x_NI, weight_VI.new_empty(0, dtype=dtype)


def _add_product(total_VI: Tensor, a_VR: Tensor, b_RI: Tensor) -> None:
    """total += a b, with a float32 total of half-precision factors too."""
    if a_VR.dtype == total_VI.dtype:
        total_VI.addmm_(a_VR, b_RI)
    elif a_VR.is_cuda:
        total_VI += torch.mm(a_VR, b_RI, out_dtype=total_VI.dtype)
    else:
        for rows in chunks(len(total_VI), 8192):
            total_VI[rows] += a_VR[rows] @ b_RI


# --- Gradients ------------------------------------------------------------------------------------------------------


def needs_gradients(x: Tensor, weight: Tensor) -> tuple[bool, bool]:
    enabled = torch.is_grad_enabled()
    return enabled and x.requires_grad, enabled and weight.requires_grad


class TotalWithGradients(torch.autograd.Function):
    """A sum of losses whose gradients by x and by the weight were worked out beside it."""

    @staticmethod
    def forward(
        ctx: Any, total: Tensor, x_NI: Tensor, weight_VI: Tensor, grad_x_NI: Tensor, grad_weight_VI: Tensor
    ) -> Tensor:
        ctx.save_for_backward(grad_x_NI, grad_weight_VI)
        ctx.dtypes = (x_NI.dtype, weight_VI.dtype)
        return total.clone()

    @staticmethod
    @differentiable_once("linear_cross_entropy")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = zip(ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad[1:3], strict=True)
        # Scaled here and not before: of a mean over many rows, float16 would lose the small probabilities.
        return None, *((known * grad).to(dtype) if need else None for known, dtype, need in found), None, None


class _LossOfRows(torch.autograd.Function):
    """The loss of every row; backward needs the gradient of each before it can add up that of the weight."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_VI: Tensor, rows: int, *loss: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_NI, weight_VI, *loss[:2])
        ctx.rows, ctx.options = rows, loss[2:]
        losses_N, lse_N, _, _ = _in_chunks(x_NI, weight_VI, RowLoss(*loss), rows, False, False)
        ctx.mark_non_differentiable(lse_N)
        return losses_N, lse_N

    @staticmethod
    @differentiable_once("linear_cross_entropy")
    def backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        x_NI, weight_VI, *tensors = ctx.saved_tensors
        loss, (need_x, need_weight) = RowLoss(*tensors, *ctx.options), ctx.needs_input_grad[:2]
        _, _, grad_x_NI, grad_weight_VI = _in_chunks(
            x_NI, weight_VI, loss, ctx.rows, need_x, need_weight, grad_N.contiguous()
        )
        grad_weight = grad_weight_VI.to(weight_VI.dtype) if need_weight else None
        return grad_x_NI if need_x else None, grad_weight, *[None] * 6

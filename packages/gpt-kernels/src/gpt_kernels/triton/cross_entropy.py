"""Cross-entropy of soft-capped logits: forward reads them once, backward once more and writes their gradient.

Neither the capped logits nor probabilities are ever stored. The gradient may be written in an 8-bit format, divided by
a scale, for the FP8 products of the head.

Dimensions: N rows, V vocabulary, K targets per row.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import on_device_of, rows_of

FORWARD_BLOCK, FORWARD_WARPS = 2048, 4
BACKWARD_BLOCK, BACKWARD_WARPS = 4096, 8

NO_CAP, TANH, SIGMOID = 0, 1, 2
MAX_BOUND = 40.0
"""Logits within ± this are summed as exp(z − cap): nothing under- or overflows, no running maximum is needed."""


@triton.jit
def tanh(x):
    """2 σ(2x) - 1, which cancels near 0: there the series, whose next term is 1e-8 of the result at 1/4."""
    s = x * x
    series = x * (1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))))
    return tl.where(s < 0.0625, series, 2.0 * tl.sigmoid(2.0 * x) - 1.0)


@triton.jit
def capped(logit, FORM: tl.constexpr, cap, shift, width):
    if FORM == 1:
        return cap * tanh(logit * (1.0 / cap))
    if FORM == 2:
        return cap * tl.sigmoid((logit + shift) * (1.0 / width))
    return logit


@triton.jit
def forward_kernel(
    logits,
    targets,
    weights,
    losses,
    lse,
    row_stride,
    V,
    ignore_index,
    cap,
    shift,
    width,
    z_loss,
    K: tl.constexpr,
    FORM: tl.constexpr,
    BOUNDED: tl.constexpr,
    BV: tl.constexpr,
):
    """losses[r] = Σ_k w_k (LSE − z[target_k] + z_loss LSE²), lse[r] = LSE; one program a row."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    if BOUNDED:
        highest = cap
        sums_V = tl.zeros((BV,), tl.float32)
        for first in range(0, V, BV):
            column = first + tl.arange(0, BV)
            z_V = capped(tl.load(start + column, mask=column < V, other=0.0).to(tl.float32), FORM, cap, shift, width)
            sums_V += tl.where(column < V, tl.exp(z_V - highest), 0.0)
        total = tl.sum(sums_V)
    else:
        highest = float("-inf")
        total = 0.0
        for first in range(0, V, BV):
            column = first + tl.arange(0, BV)
            l_V = tl.load(start + column, mask=column < V, other=float("-inf")).to(tl.float32)
            z_V = tl.where(column < V, capped(l_V, FORM, cap, shift, width), float("-inf"))
            new = tl.maximum(highest, tl.max(z_V))
            safe = tl.where(new == float("-inf"), 0.0, new)  # nothing but masked logits so far
            total = total * tl.exp(highest - safe) + tl.sum(tl.exp(z_V - safe))
            highest = new
    log_sum = highest + tl.log(total)
    loss = 0.0
    for k in tl.static_range(K):
        target = tl.load(targets + row * K + k)
        inside = (target >= 0) & (target < V)
        z = capped(tl.load(start + target, mask=inside, other=0.0).to(tl.float32), FORM, cap, shift, width)
        term = tl.load(weights + k) * (log_sum - z + z_loss * log_sum * log_sum)
        loss += tl.where(target == ignore_index, 0.0, tl.where(inside, term, float("nan")))
    tl.store(losses + row, loss)
    tl.store(lse + row, log_sum)


@triton.jit
def gradient_kernel(
    grad,
    lse,
    logits,
    targets,
    weights,
    out,
    row_stride,
    V,
    ignore_index,
    cap,
    shift,
    width,
    z_loss,
    inverse_scale,
    K: tl.constexpr,
    FORM: tl.constexpr,
    LARGEST: tl.constexpr,
    BV: tl.constexpr,
):
    """out[r, j] = grad_r / scale · dz/dl · (S (1 + 2 z_loss LSE) p_j − Σ_k w_k [j = target_k]), S the sum of the w_k
    that count; a block of columns of a row per program. LARGEST > 0 clamps to the range of an 8-bit format."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BV + tl.arange(0, BV)
    l_V = tl.load(logits + row * row_stride + column, mask=column < V, other=0.0).to(tl.float32)
    log_sum = tl.load(lse + row)
    z_V = capped(l_V, FORM, cap, shift, width)
    sum_of_weights = 0.0
    hits_V = tl.zeros((BV,), tl.float32)
    for k in tl.static_range(K):
        target = tl.load(targets + row * K + k)
        weight = tl.where(target == ignore_index, 0.0, tl.load(weights + k))
        sum_of_weights += weight
        hits_V += tl.where(column == target, weight, 0.0)
    d_V = sum_of_weights * (1.0 + 2.0 * z_loss * log_sum) * tl.exp(z_V - log_sum) - hits_V
    if FORM == 1:
        share_V = z_V * (1.0 / cap)
        d_V *= 1.0 - share_V * share_V
    if FORM == 2:
        d_V *= z_V * (1.0 - z_V * (1.0 / cap)) * (1.0 / width)
    d_V *= tl.load(grad + row) * inverse_scale
    if LARGEST > 0:
        d_V = tl.minimum(tl.maximum(d_V, -LARGEST, tl.PropagateNan.ALL), LARGEST, tl.PropagateNan.ALL)
    tl.store(out + row * V + column, d_V.to(out.dtype.element_ty), mask=column < V)


def _form(cap: list[float]) -> tuple[int, float, float, float]:
    """FORM, cap, shift, width"""
    if len(cap) == 3:
        return SIGMOID, cap[0], cap[1], cap[2]
    return (TANH, cap[0], 0.0, 1.0) if cap else (NO_CAP, 1.0, 0.0, 1.0)


@torch.library.custom_op("gpt_kernels::cross_entropy_losses", mutates_args=())
def cross_entropy_losses(
    logits_NV: Tensor, targets_NK: Tensor, weights_K: Tensor, cap: list[float], ignore_index: int, z_loss: float
) -> tuple[Tensor, Tensor]:
    """(N,) losses and (N,) log-sum-exp, float32; see `gpt_kernels.cross_entropy`. Differentiable in the losses.

    logits (N, V) of at most 32 bits; targets (N, K) int64: one out of range that is not ignore_index makes the loss of
    its row nan. weights (K,) float32. cap as `softcap_numbers` gives it.
    """
    (N, V), K = logits_NV.shape, len(weights_K)
    losses_N, lse_N = (logits_NV.new_empty(N, dtype=torch.float32) for _ in range(2))
    if N:
        logits_NV, targets_NK, weights_K = rows_of(logits_NV), targets_NK.contiguous(), weights_K.contiguous()
        form = _form(cap)
        bounded = (form[0] == SIGMOID and form[1] <= 2 * MAX_BOUND) or (form[0] == TANH and form[1] <= MAX_BOUND)
        block = min(triton.next_power_of_2(V), FORWARD_BLOCK)
        with on_device_of(logits_NV):
            forward_kernel[(N,)](
                logits_NV,
                targets_NK,
                weights_K,
                losses_N,
                lse_N,
                logits_NV.stride(0),
                V,
                ignore_index,
                *form[1:],
                z_loss,
                K=K,
                FORM=form[0],
                BOUNDED=bounded,
                BV=block,
                num_warps=FORWARD_WARPS,
            )
    return losses_N, lse_N


@cross_entropy_losses.register_fake
def _(logits_NV: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    N = logits_NV.shape[0]
    return logits_NV.new_empty(N, dtype=torch.float32), logits_NV.new_empty(N, dtype=torch.float32)


@torch.library.custom_op("gpt_kernels::cross_entropy_gradient", mutates_args=())
def cross_entropy_gradient(
    grad_N: Tensor,
    lse_N: Tensor,
    logits_NV: Tensor,
    targets_NK: Tensor,
    weights_K: Tensor,
    cap: list[float],
    ignore_index: int,
    z_loss: float,
    dtype: torch.dtype,
    grad_scale: float,
) -> Tensor:
    """(N, V) gradient by the logits over grad_scale, in `dtype`: a float format, or float8_e4m3fn or float8_e5m2,
    where values beyond the range saturate. grad (N,) is that of the losses."""
    (N, V), K = logits_NV.shape, len(weights_K)
    out_NV = logits_NV.new_empty(N, V, dtype=dtype)
    if N:
        logits_NV, targets_NK, weights_K = rows_of(logits_NV), targets_NK.contiguous(), weights_K.contiguous()
        form = _form(cap)
        block = min(triton.next_power_of_2(V), BACKWARD_BLOCK)
        with on_device_of(logits_NV):
            gradient_kernel[(N, triton.cdiv(V, block))](
                grad_N.contiguous(),
                lse_N.contiguous(),
                logits_NV,
                targets_NK,
                weights_K,
                out_NV,
                logits_NV.stride(0),
                V,
                ignore_index,
                *form[1:],
                z_loss,
                1 / grad_scale,
                K=K,
                FORM=form[0],
                LARGEST=torch.finfo(dtype).max if dtype.itemsize == 1 else 0.0,
                BV=block,
                num_warps=BACKWARD_WARPS,
            )
    return out_NV


@cross_entropy_gradient.register_fake
def _(
    grad_N: Tensor, lse_N: Tensor, logits_NV: Tensor, t: Any, w: Any, c: Any, i: Any, z: Any, dtype: torch.dtype, s: Any
) -> Tensor:
    return logits_NV.new_empty(logits_NV.shape, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits_NV, targets_NK, weights_K, *ctx.options = inputs
    ctx.save_for_backward(logits_NV, targets_NK, weights_K, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_N: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    logits_NV, targets_NK, weights_K, lse_N = ctx.saved_tensors
    gradient_NV = cross_entropy_gradient(
        grad_N, lse_N, logits_NV, targets_NK, weights_K, *ctx.options, logits_NV.dtype, 1.0
    )
    return gradient_NV, None, None, None, None, None


cross_entropy_losses.register_autograd(_backward, setup_context=_setup_context)

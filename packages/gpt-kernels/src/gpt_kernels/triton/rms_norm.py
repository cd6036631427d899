"""RMS norm with whole rows in registers: forward and backward each read their inputs once and write once.

Nothing is kept for backward but x and weight: the row is read there in any case, and its mean square costs nothing.

Dimensions: M rows, N columns.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import empty_rows_like, on_device_of, row_tiles, summing_row_tiles, with_strides_of


@triton.jit
def forward_kernel(x, weight, y, M, eps, N: tl.constexpr, HAS_WEIGHT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """y = x · rsqrt(mean x² + eps) · weight for BM rows."""
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    column = tl.arange(0, BN)
    inside = (row < M)[:, None] & (column < N)[None, :]
    at = row[:, None] * N + column[None, :]
    x_MN = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    y_MN = x_MN * tl.rsqrt(tl.sum(x_MN * x_MN, axis=1) / N + eps)[:, None]
    if HAS_WEIGHT:
        y_MN *= tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, y_MN.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    grad,
    x,
    weight,
    grad_x,
    grad_weight,
    M,
    eps,
    N: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WANTS_WEIGHT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """With x̂ = x r and g = grad · weight: grad_x = r (g − x̂ mean(g x̂)); grad_weight = Σ grad · x̂ over the rows that
    this program takes, one row of partial sums a program."""
    column = tl.arange(0, BN)
    if HAS_WEIGHT:
        weight_N = tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)
    sum_MN = tl.zeros((BM, BN), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(M, BM), tl.num_programs(0)):
        row = (tile * BM + tl.arange(0, BM)).to(tl.int64)
        inside = (row < M)[:, None] & (column < N)[None, :]
        at = row[:, None] * N + column[None, :]
        x_MN = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        g_MN = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        r_M1 = tl.rsqrt(tl.sum(x_MN * x_MN, axis=1) / N + eps)[:, None]
        x_MN *= r_M1
        if WANTS_WEIGHT:
            sum_MN += g_MN * x_MN
        if HAS_WEIGHT:
            g_MN *= weight_N[None, :]
        g_MN = r_M1 * (g_MN - x_MN * (tl.sum(g_MN * x_MN, axis=1) / N)[:, None])
        tl.store(grad_x + at, g_MN.to(grad_x.dtype.element_ty), mask=inside)
    if WANTS_WEIGHT:
        tl.store(grad_weight + tl.program_id(0) * N + column, tl.sum(sum_MN, axis=0), mask=column < N)


@torch.library.custom_op("gpt_kernels::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `gpt_kernels.rms_norm`; x of at most 16384 columns, weight contiguous."""
    y = empty_rows_like(x)
    N = x.shape[-1]
    M = x.numel() // N if N else 0
    if M:
        x = with_strides_of(x, y)
        BM, BN, warps = row_tiles(M, N)
        with on_device_of(x):
            forward_kernel[(triton.cdiv(M, BM),)](x, weight, y, M, eps, N, weight is not None, BM, BN, num_warps=warps)
    return y


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    return empty_rows_like(x)


@torch.library.custom_op("gpt_kernels::rms_norm_backward", mutates_args=())
def rms_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, eps: float, wants_weight: bool
) -> tuple[Tensor, Tensor]:
    """(grad_x, grad_weight); the second is empty where it is not wanted."""
    grad_x = empty_rows_like(x)
    N = x.shape[-1]
    M = x.numel() // N if N else 0
    if not M:
        return grad_x, _empty_weight(x, weight, wants_weight).zero_()
    grad, x = with_strides_of(grad, grad_x), with_strides_of(x, grad_x)
    if wants_weight:
        BM, BN, warps, programs = summing_row_tiles(M, N, x.device)
    else:
        BM, BN, warps = row_tiles(M, N)
        programs = triton.cdiv(M, BM)
    partial = x.new_empty(programs if wants_weight else 0, N, dtype=torch.float32)
    with on_device_of(x):
        backward_kernel[(programs,)](
            grad, x, weight, grad_x, partial, M, eps, N, weight is not None, wants_weight, BM, BN, num_warps=warps
        )
    if not wants_weight or weight is None:
        return grad_x, _empty_weight(x, weight, False)
    return grad_x, partial.sum(0).to(weight.dtype)


@rms_norm_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor | None, eps: float, wants_weight: bool) -> tuple[Tensor, Tensor]:
    return empty_rows_like(x), _empty_weight(x, weight, wants_weight)


def _empty_weight(x: Tensor, weight: Tensor | None, wanted: bool) -> Tensor:
    return weight.new_empty(weight.shape) if wanted and weight is not None else x.new_empty(0)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float], output: Tensor) -> None:
    x, weight, ctx.eps = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight = ctx.saved_tensors
    wants_weight = weight is not None and ctx.needs_input_grad[1]
    grad_x, grad_weight = rms_norm_backward(grad, x, weight, ctx.eps, wants_weight)
    return grad_x, grad_weight if wants_weight else None, None


rms_norm.register_autograd(_backward, setup_context=_setup_context)

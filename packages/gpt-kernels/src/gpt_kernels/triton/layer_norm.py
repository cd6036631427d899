"""Layer norm with whole rows in registers; like `rms_norm`, it keeps nothing for backward but its arguments.

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
def normed_rows(x, at, inside, eps, N: tl.constexpr):
    """(x − mean) / deviation for a tile of rows, zero outside; and 1 / deviation, (BM, 1)."""
    x_MN = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    x_MN = tl.where(inside, x_MN - (tl.sum(x_MN, axis=1) / N)[:, None], 0.0)
    r_M1 = tl.rsqrt(tl.sum(x_MN * x_MN, axis=1) / N + eps)[:, None]
    return x_MN * r_M1, r_M1


@triton.jit
def forward_kernel(
    x,
    weight,
    bias,
    y,
    M,
    eps,
    N: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    row = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    column = tl.arange(0, BN)
    inside = (row < M)[:, None] & (column < N)[None, :]
    at = row[:, None] * N + column[None, :]
    y_MN, _ = normed_rows(x, at, inside, eps, N)
    if HAS_WEIGHT:
        y_MN *= tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y_MN += tl.load(bias + column, mask=column < N, other=0.0).to(tl.float32)[None, :]
    tl.store(y + at, y_MN.to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(
    grad,
    x,
    weight,
    grad_x,
    grad_weight,
    grad_bias,
    M,
    eps,
    N: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    WANTS_WEIGHT: tl.constexpr,
    WANTS_BIAS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """With x̂ the normed row, r = 1 / deviation and g = grad · weight: grad_x = r (g − mean(g) − x̂ mean(g x̂)).
    Gradients of weight (Σ grad · x̂) and bias (Σ grad) are partial sums, one row a program."""
    column = tl.arange(0, BN)
    if HAS_WEIGHT:
        weight_N = tl.load(weight + column, mask=column < N, other=0.0).to(tl.float32)
    weight_MN = tl.zeros((BM, BN), tl.float32)
    bias_MN = tl.zeros((BM, BN), tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(M, BM), tl.num_programs(0)):
        row = (tile * BM + tl.arange(0, BM)).to(tl.int64)
        inside = (row < M)[:, None] & (column < N)[None, :]
        at = row[:, None] * N + column[None, :]
        x_MN, r_M1 = normed_rows(x, at, inside, eps, N)
        g_MN = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        if WANTS_WEIGHT:
            weight_MN += g_MN * x_MN
        if WANTS_BIAS:
            bias_MN += g_MN
        if HAS_WEIGHT:
            g_MN *= weight_N[None, :]
        mean_M1 = (tl.sum(g_MN, axis=1) / N)[:, None]
        g_MN = r_M1 * (g_MN - mean_M1 - x_MN * (tl.sum(g_MN * x_MN, axis=1) / N)[:, None])
        tl.store(grad_x + at, g_MN.to(grad_x.dtype.element_ty), mask=inside)
    at = tl.program_id(0) * N + column
    if WANTS_WEIGHT:
        tl.store(grad_weight + at, tl.sum(weight_MN, axis=0), mask=column < N)
    if WANTS_BIAS:
        tl.store(grad_bias + at, tl.sum(bias_MN, axis=0), mask=column < N)


@torch.library.custom_op("gpt_kernels::layer_norm", mutates_args=())
def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """See `gpt_kernels.layer_norm`; x of at most 16384 columns, weight and bias contiguous."""
    y = empty_rows_like(x)
    N = x.shape[-1]
    M = x.numel() // N if N else 0
    if M:
        x = with_strides_of(x, y)
        BM, BN, warps = row_tiles(M, N)
        has = weight is not None, bias is not None
        with on_device_of(x):
            forward_kernel[(triton.cdiv(M, BM),)](x, weight, bias, y, M, eps, N, *has, BM, BN, num_warps=warps)
    return y


@layer_norm.register_fake
def _(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    return empty_rows_like(x)


@torch.library.custom_op("gpt_kernels::layer_norm_backward", mutates_args=())
def layer_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; wants: whether those of weight and bias are, else they are empty."""
    grad_x = empty_rows_like(x)
    N = x.shape[-1]
    M = x.numel() // N if N else 0
    if not M:
        return grad_x, _empty(x, weight, wants[0]).zero_(), _empty(x, bias, wants[1]).zero_()
    grad, x = with_strides_of(grad, grad_x), with_strides_of(x, grad_x)
    if any(wants):
        BM, BN, warps, programs = summing_row_tiles(M, N, x.device)
    else:
        BM, BN, warps = row_tiles(M, N)
        programs = triton.cdiv(M, BM)
    partial = [x.new_empty(programs if want else 0, N, dtype=torch.float32) for want in wants]
    with on_device_of(x):
        backward_kernel[(programs,)](
            grad, x, weight, grad_x, *partial, M, eps, N, weight is not None, *wants, BM, BN, num_warps=warps
        )
    found = [
        part.sum(0).to(parameter.dtype) if want and parameter is not None else x.new_empty(0)
        for part, parameter, want in zip(partial, (weight, bias), wants, strict=True)
    ]
    return grad_x, found[0], found[1]


@layer_norm_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, wants: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_rows_like(x), _empty(x, weight, wants[0]), _empty(x, bias, wants[1])


def _empty(x: Tensor, parameter: Tensor | None, wanted: bool) -> Tensor:
    return parameter.new_empty(parameter.shape) if wanted and parameter is not None else x.new_empty(0)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, Tensor | None, float], output: Tensor) -> None:
    x, weight, bias, ctx.eps = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
    x, weight, bias = ctx.saved_tensors
    wants = [
        parameter is not None and needed
        for parameter, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
    ]
    grad_x, *rest = layer_norm_backward(grad, x, weight, bias, ctx.eps, wants)
    grad_weight, grad_bias = (found if want else None for found, want in zip(rest, wants, strict=True))
    return grad_x, grad_weight, grad_bias, None


layer_norm.register_autograd(_backward, setup_context=_setup_context)

"""Transposition in tiles: both sides of the copy touch memory in whole lines, the turn happens on the chip.

Offsets are 64 bits wide: a gradient of 49152 x 50304 logits has more than 2³¹ values.

Dimensions: B matrices, M rows and N columns of x.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import on_device_of


@triton.jit
def transpose_kernel(
    x, y, out, M, N, x_b, x_m, x_n, y_b, y_n, y_m, ADD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):
    """out[n, m] = x[m, n] (+ y[n, m]); x_b, x_m, x_n: strides of x, and so for y; out (B, N, M) is contiguous."""
    tiles_m, tiles_n = tl.cdiv(M, BM), tl.cdiv(N, BN)
    b = (tl.program_id(0) // (tiles_m * tiles_n)).to(tl.int64)  # one dimension: the second holds 65535 at most
    m = (tl.program_id(0) // tiles_n % tiles_m * BM + tl.arange(0, BM)).to(tl.int64)
    n = (tl.program_id(0) % tiles_n * BN + tl.arange(0, BN)).to(tl.int64)
    inside = (m < M)[:, None] & (n < N)[None, :]
    turned = tl.trans(tl.load(x + b * x_b + m[:, None] * x_m + n[None, :] * x_n, mask=inside, other=0))
    inside = (n < N)[:, None] & (m < M)[None, :]
    if ADD:
        y_NM = tl.load(y + b * y_b + n[:, None] * y_n + m[None, :] * y_m, mask=inside, other=0)
        turned = turned.to(tl.float32) + y_NM.to(tl.float32)
    tl.store(out + b * M * N + n[:, None] * M + m[None, :], turned.to(out.dtype.element_ty), mask=inside)


def _launch(x: Tensor, y: Tensor | None) -> Tensor:
    B, (M, N) = math.prod(x.shape[:-2]), x.shape[-2:]
    out = x.new_empty(*x.shape[:-2], N, M)
    if not out.numel():
        return out
    x_BMN = x.reshape(B, M, N)
    y_BNM = None if y is None else y.reshape(B, N, M)
    BM, BN, warps = (64, 128, 8) if y is None else (32, 32, 4)
    y_strides = (0, 0, 0) if y_BNM is None else y_BNM.stride()
    grid = (B * triton.cdiv(M, BM) * triton.cdiv(N, BN),)
    with on_device_of(x):
        transpose_kernel[grid](
            x_BMN, y_BNM, out, M, N, *x_BMN.stride(), *y_strides, ADD=y is not None, BM=BM, BN=BN, num_warps=warps
        )
    return out


@torch.library.custom_op("gpt_kernels::transpose_copy", mutates_args=())
def transpose_copy(x: Tensor) -> Tensor:
    """See `gpt_kernels.transpose_copy`."""
    return _launch(x, None)


@transpose_copy.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-2], x.shape[-1], x.shape[-2])


@torch.library.custom_op("gpt_kernels::transpose_add", mutates_args=())
def transpose_add(x: Tensor, y: Tensor) -> Tensor:
    """See `gpt_kernels.transpose_add`."""
    return _launch(x, y)


@transpose_add.register_fake
def _(x: Tensor, y: Tensor) -> Tensor:
    return y.new_empty(y.shape)


def _backward(ctx: Any, grad: Tensor) -> Tensor:
    return grad.mT


def _add_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return grad.mT, grad


transpose_copy.register_autograd(_backward)
transpose_add.register_autograd(_add_backward)

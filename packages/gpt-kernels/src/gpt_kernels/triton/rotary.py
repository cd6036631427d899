"""Rotary positions: x is read once and written once; backward is the rotation by minus the angle.

Dimensions: B batch, H heads, T tokens, K channels of a head, R of its pairs that are turned.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import empty_rows_like, on_device_of


@triton.jit
def rotary_kernel(
    x,
    cos,
    sin,
    out,
    sign,
    H,
    T,
    x_b,
    x_h,
    x_t,
    table_b,
    table_h,
    table_t,
    out_b,
    out_h,
    out_t,
    K: tl.constexpr,
    R: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BT: tl.constexpr,
    BK: tl.constexpr,
):
    """BT tokens of one head: (a, b) to (a cos − b sin, a sin + b cos), sin times `sign`; other channels are kept."""
    h, b = (tl.program_id(0) % H).to(tl.int64), (tl.program_id(0) // H).to(tl.int64)
    token = (tl.program_id(1) * BT + tl.arange(0, BT)).to(tl.int64)[:, None]
    pair = tl.arange(0, BK // 2)[None, :]
    x += b * x_b + h * x_h + token * x_t
    out += b * out_b + h * out_h + token * out_t
    turns = (token < T) & (pair < R)
    table = b * table_b + h * table_h + token * table_t + pair
    cos_TR = tl.load(cos + table, mask=turns, other=1.0).to(tl.float32)
    sin_TR = tl.load(sin + table, mask=turns, other=0.0).to(tl.float32) * sign
    if INTERLEAVED:  # pairs that are not turned have angle 0
        channel = tl.arange(0, BK)[None, :]
        inside = (token < T) & (channel < K)
        x_TK = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
        first, second = tl.split(tl.reshape(x_TK, (BT, BK // 2, 2)))
        turned = tl.join(first * cos_TR - second * sin_TR, first * sin_TR + second * cos_TR)
        tl.store(out + channel, tl.reshape(turned, (BT, BK)).to(out.dtype.element_ty), mask=inside)
    else:
        first = tl.load(x + pair, mask=turns, other=0.0).to(tl.float32)
        second = tl.load(x + R + pair, mask=turns, other=0.0).to(tl.float32)
        tl.store(out + pair, (first * cos_TR - second * sin_TR).to(out.dtype.element_ty), mask=turns)
        tl.store(out + R + pair, (first * sin_TR + second * cos_TR).to(out.dtype.element_ty), mask=turns)
        if 2 * R < K:
            channel = 2 * R + tl.arange(0, BK)[None, :]
            inside = (token < T) & (channel < K)
            tl.store(out + channel, tl.load(x + channel, mask=inside, other=0.0), mask=inside)


@torch.library.custom_op("gpt_kernels::apply_rotary", mutates_args=())
def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, backwards: bool = False) -> Tensor:
    """See `gpt_kernels.apply_rotary`; backwards turns by minus the angles. No gradient for the tables."""
    out = empty_rows_like(x)
    if not out.numel():
        return out
    B, H, T, K = x.shape
    R = cos.shape[-1]
    x = x if x.stride(-1) == 1 else x.contiguous()
    cos, sin = (table.expand(B, H, T, R) for table in (cos, sin))
    BK = triton.next_power_of_2(K)
    BT = max(1, min(4096 // BK, triton.next_power_of_2(T)))
    with on_device_of(x):
        rotary_kernel[(B * H, triton.cdiv(T, BT))](  # CUDA has at most 65535 programs in the second dimension
            x,
            cos,
            sin,
            out,
            -1.0 if backwards else 1.0,
            H,
            T,
            *x.stride()[:3],
            *cos.stride()[:3],
            *out.stride()[:3],
            K=K,
            R=R,
            INTERLEAVED=interleaved,
            BT=BT,
            BK=BK,
            num_warps=4,
        )
    return out


@apply_rotary.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, backwards: bool = False) -> Tensor:
    return empty_rows_like(x)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, bool, bool], output: Tensor) -> None:
    _, cos, sin, ctx.interleaved, ctx.backwards = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, None]:
    return apply_rotary(grad, *ctx.saved_tensors, ctx.interleaved, not ctx.backwards), None, None, None, None


apply_rotary.register_autograd(_backward, setup_context=_setup_context)

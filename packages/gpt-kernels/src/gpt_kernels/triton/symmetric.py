"""Symmetric matrix products: programs for the lower triangle of tiles alone, each stores its tile and the mirror of it.

The result is exactly symmetric. At S = 768 there are 21 tiles of 128 instead of 36. Both factors are read row by row as
they lie, and turned in registers.

Dimensions: B matrices, S side, K summed; tiles of T x T, K in steps of TK.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import Tiles, on_device_of, processors


@triton.jit
def symmetric_kernel(
    x,
    y,
    addend,
    out,
    alpha,
    beta,
    S,
    K,
    x_b,
    x_s,
    x_k,
    y_b,
    y_k,
    y_s,
    a_b,
    a_s,
    a_k,
    HAS_ADDEND: tl.constexpr,
    T: tl.constexpr,
    TK: tl.constexpr,
):
    """out = alpha · x y + beta · addend; x_b, x_s, x_k: strides of x, and so on; out (B, S, S) is contiguous."""
    # The triangle's tiles are counted row by row: those of a row share their rows of x.
    rows = tl.cdiv(S, T)
    tiles = rows * (rows + 1) // 2
    tile = tl.program_id(0) % tiles
    i = ((tl.sqrt((8 * tile + 1).to(tl.float32)) - 1) / 2).to(tl.int32)
    i -= tl.where(i * (i + 1) // 2 > tile, 1, 0)  # the root may be rounded either way
    i += tl.where((i + 1) * (i + 2) // 2 <= tile, 1, 0)
    j = tile - i * (i + 1) // 2
    b = (tl.program_id(0) // tiles).to(tl.int64)  # one dimension: the second holds 65535 at most
    row, column, k = i * T + tl.arange(0, T), j * T + tl.arange(0, T), tl.arange(0, TK).to(tl.int64)
    # Beyond the edge the first rows are read again, which needs no mask; they are not stored.
    x_at = x + b * x_b + (row % S).to(tl.int64)[:, None] * x_s + k[None, :] * x_k
    y_at = y + b * y_b + (column % S).to(tl.int64)[:, None] * y_s + k[None, :] * y_k
    sum_TT = tl.zeros((T, T), tl.float32)
    for step in range(tl.cdiv(K, TK)):
        rest = (k < K - step * TK)[None, :]
        x_TK = tl.load(x_at, mask=rest, other=0.0)
        y_TK = tl.load(y_at, mask=rest, other=0.0)
        sum_TT = tl.dot(x_TK, tl.trans(y_TK), sum_TT, input_precision="ieee")
        x_at += TK * x_k
        y_at += TK * y_k
    sum_TT *= alpha
    inside = (row < S)[:, None] & (column < S)[None, :]
    row, column = row.to(tl.int64), column.to(tl.int64)
    if HAS_ADDEND:
        at = addend + b * a_b + row[:, None] * a_s + column[None, :] * a_k
        sum_TT += beta * tl.load(at, mask=inside, other=0.0).to(tl.float32)
    sum_TT = sum_TT.to(out.dtype.element_ty)
    mirror_TT = tl.trans(sum_TT)
    if i == j:  # exactly symmetric, whatever the order of the sums
        sum_TT = tl.where(row[:, None] >= column[None, :], sum_TT, mirror_TT)
    out += b * S * S
    tl.store(out + row[:, None] * S + column[None, :], sum_TT, mask=inside)
    if i > j:
        mirrored = (column < S)[:, None] & (row < S)[None, :]
        tl.store(out + column[:, None] * S + row[None, :], mirror_TT, mask=mirrored)


def tiles_for(x_BSK: Tensor) -> Tiles:
    """Tiles of 128, or of 64 where those would leave multiprocessors idle; small ones to interpret."""
    if not x_BSK.is_cuda:
        return Tiles(32, 32, 32, 4, 2)
    rows = triton.cdiv(x_BSK.shape[1], 128)
    few = len(x_BSK) * rows * (rows + 1) // 2 < processors(x_BSK.device)
    return Tiles(64, 64, 64, 4, 4) if few else Tiles(128, 128, 64, 8, 4)


@torch.library.custom_op("gpt_kernels::symmetric_product", mutates_args=())
def symmetric_product(x: Tensor, y: Tensor, addend: Tensor | None, alpha: float, beta: float) -> Tensor:
    """See `gpt_kernels.symmetric_product`."""
    B, (S, K) = math.prod(x.shape[:-2]), x.shape[-2:]
    x_BSK, y_BKS = x.reshape(B, S, K), y.reshape(B, K, S)
    addend_BSS = None if addend is None else addend.reshape(B, S, S)
    out_BSS = x.new_empty(B, S, S)
    if out_BSS.numel():
        tiles = tiles_for(x_BSK)
        rows = triton.cdiv(S, tiles.M)
        addend_strides = (0, 0, 0) if addend_BSS is None else addend_BSS.stride()
        with on_device_of(x):
            symmetric_kernel[(B * rows * (rows + 1) // 2,)](
                x_BSK,
                y_BKS,
                addend_BSS,
                out_BSS,
                alpha,
                beta,
                S,
                K,
                *x_BSK.stride(),
                *y_BKS.stride(),
                *addend_strides,
                HAS_ADDEND=addend is not None,
                T=tiles.M,
                TK=tiles.K,
                num_warps=tiles.warps,
                num_stages=tiles.stages,
            )
    return out_BSS.view(*x.shape[:-1], S)


@symmetric_product.register_fake
def _(x: Tensor, y: Tensor, addend: Tensor | None, alpha: float, beta: float) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-2])


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, float, float], output: Tensor) -> None:
    x, y, _, ctx.alpha, ctx.beta = inputs
    ctx.save_for_backward(x, y)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, y = ctx.saved_tensors
    needs_x, needs_y, needs_addend = ctx.needs_input_grad[:3]
    grad_x = ctx.alpha * (grad @ y.mT) if needs_x else None
    grad_y = ctx.alpha * (x.mT @ grad) if needs_y else None
    return grad_x, grad_y, ctx.beta * grad if needs_addend else None, None, None


symmetric_product.register_autograd(_backward, setup_context=_setup_context)

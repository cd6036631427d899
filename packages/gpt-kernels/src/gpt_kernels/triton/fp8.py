"""Quantise a matrix to float8 and store it by rows and by columns in one pass.

The products of a linear map want each matrix in both orders: left factors by rows, right ones by columns. A tile read
once is written twice, where torch would read it for the cast and read the result again to transpose it byte by byte.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .layout import on_device_of

BLOCK_M, BLOCK_N, WARPS = 64, 128, 4


@triton.jit
def quantize_kernel(
    x,
    scale,
    q,
    q_transposed,
    M,
    N,
    stride_m,
    stride_n,
    LARGEST: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """q[m, n] = q_transposed[n, m] = clamp(x[m, n] / scale) for a tile of BM × BN."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    column = tl.program_id(1).to(tl.int64) * BN + tl.arange(0, BN)
    inside = (row < M)[:, None] & (column < N)[None, :]
    at = row[:, None] * stride_m + column[None, :] * stride_n
    # Triton's own / is an approximation: a value halfway between two could go the other way than torch's.
    x_MN = tl.div_rn(tl.load(x + at, mask=inside, other=0.0).to(tl.float32), tl.load(scale))
    x_MN = tl.minimum(tl.maximum(x_MN, -LARGEST, tl.PropagateNan.ALL), LARGEST, tl.PropagateNan.ALL)
    q_MN = x_MN.to(q.dtype.element_ty)
    tl.store(q + row[:, None] * N + column[None, :], q_MN, mask=inside)
    if TRANSPOSED:
        inside_NM = (column < N)[:, None] & (row < M)[None, :]
        tl.store(q_transposed + column[:, None] * M + row[None, :], tl.trans(q_MN), mask=inside_NM)


@torch.library.custom_op("gpt_kernels::quantize_fp8", mutates_args=())
def quantize_fp8(x_MN: Tensor, scale: Tensor, dtype: torch.dtype, transposed: bool) -> tuple[Tensor, Tensor]:
    """(q (M, N), qᵀ (N, M)), both contiguous; the second is (0,) unless wanted. scale: 0-d float32. Not differentiable.

    x of at most 32 bits, in any order; values beyond the range of `dtype` saturate, nan stays nan.
    """
    M, N = x_MN.shape
    q_MN, q_NM = _outputs(x_MN, dtype, transposed)
    if x_MN.numel():
        grid = (triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))
        with on_device_of(x_MN):
            quantize_kernel[grid](
                x_MN,
                scale,
                q_MN,
                q_NM,
                M,
                N,
                *x_MN.stride(),
                LARGEST=torch.finfo(dtype).max,
                TRANSPOSED=transposed,
                BM=BLOCK_M,
                BN=BLOCK_N,
                num_warps=WARPS,
            )
    return q_MN, q_NM


@quantize_fp8.register_fake
def _(x_MN: Tensor, scale: Tensor, dtype: torch.dtype, transposed: bool) -> tuple[Tensor, Tensor]:
    return _outputs(x_MN, dtype, transposed)


def _outputs(x_MN: Tensor, dtype: torch.dtype, transposed: bool) -> tuple[Tensor, Tensor]:
    M, N = x_MN.shape
    return x_MN.new_empty(M, N, dtype=dtype), x_MN.new_empty((N, M) if transposed else (0,), dtype=dtype)

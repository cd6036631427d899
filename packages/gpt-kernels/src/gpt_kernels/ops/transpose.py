"""Transposed copies and sums of matrices in tiles, where torch's kernels read or write one value at a time.

The speedrun keeps its embedding and its head as each other's transpose: 768 x 50304, more than a cache holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_floats
from .dispatch import FLOATS, fits_triton

COPIED = (*FLOATS, torch.float64, torch.int32, torch.int64, torch.int16, torch.int8, torch.uint8)


def transpose_copy(x: Tensor) -> Tensor:
    """A contiguous (..., N, M) holding xᵀ of x (..., M, N), any dtype. Differentiable. ValueError for vectors."""
    if x.dim() < 2:
        raise ValueError(f"transpose_copy needs a matrix (..., M, N), got {tuple(x.shape)}")
    if transpose_backend(x) == "triton":
        from ..triton.transpose import transpose_copy as fused

        return fused(x)
    return transpose_copy_reference(x)


def transpose_copy_reference(x: Tensor) -> Tensor:
    """The definition of `transpose_copy`."""
    return x.mT.clone(memory_format=torch.contiguous_format)


def transpose_add(x: Tensor, y: Tensor) -> Tensor:
    """xᵀ + y for x (..., M, N) and y (..., N, M) of one dtype; contiguous, rounded once. Differentiable.

    Raises ValueError for other shapes, and for integers.
    """
    check_floats("transpose_add", x, y)
    if min(x.dim(), y.dim()) < 2 or x.shape != y.mT.shape or x.dtype != y.dtype:
        raise ValueError(
            f"transpose_add needs x (..., M, N) and y (..., N, M) of one dtype, got {tuple(x.shape)} {x.dtype} and "
            f"{tuple(y.shape)} {y.dtype}"
        )
    if transpose_backend(x, y) == "triton":
        from ..triton.transpose import transpose_add as fused

        return fused(x, y)
    return transpose_add_reference(x, y)


def transpose_add_reference(x: Tensor, y: Tensor) -> Tensor:
    """The definition of `transpose_add`."""
    return torch.add(y, x.mT).contiguous()


def transpose_backend(x: Tensor, y: Tensor | None = None) -> str:
    """Which path `transpose_copy(x)` or `transpose_add(x, y)` takes: "triton" (plain CUDA tensors) or "torch"."""
    dtypes = COPIED if y is None else FLOATS
    return "triton" if x.dim() >= 2 and fits_triton(x, y, dtypes=dtypes) else "torch"

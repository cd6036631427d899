"""Root-mean-square normalization (https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_norm
from .dispatch import fits_triton, fuses_elsewhere

MAX_COLUMNS = 16384
"""A Triton program holds whole rows in registers: longer ones stay with the reference."""


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in the dtype and shape of x.

    x: (..., N), any float dtype; weight: (N,) of any float dtype, or None for the weightless norm.
    The arithmetic is done in float32 (float64 for float64 input): a sum of squares in bfloat16 loses the
    small terms. Differentiable in x and weight; twice by the reference only.
    Raises ValueError for integers and for a weight of another size.
    """
    check_norm("rms_norm", x, weight=weight)
    if x.is_cuda and rms_norm_backend(x, weight) == "triton":
        from ..triton.rms_norm import rms_norm as fused

        return fused(x, weight, eps)
    return rms_norm_reference(x, weight, eps)


def rms_norm_reference(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The definition of `rms_norm`."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        normed = normed * weight
    return normed.to(x.dtype)


def rms_norm_backend(x: Tensor, weight: Tensor | None = None) -> str:
    """Which path `rms_norm` takes for these arguments: "triton" (plain CUDA tensors, rows of at most 16384) or "torch".

    While torch.compile traces it is "torch": Inductor fuses the norm with what stands beside it.
    """
    fits = fits_triton(x, weight) and x.shape[-1] <= MAX_COLUMNS and not fuses_elsewhere()
    fits = fits and (weight is None or (weight.shape == x.shape[-1:] and weight.is_contiguous()))
    return "triton" if fits else "torch"

"""Layer normalization (https://arxiv.org/abs/1607.06450)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import check_norm
from .dispatch import fits_triton, fuses_elsewhere
from .rms_norm import MAX_COLUMNS


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x − mean) / sqrt(variance + eps) · weight + bias over the last dimension, in the dtype and shape of x.

    x: (..., N), any float dtype; weight and bias: (N,) of any float dtype, or None. The variance is that of the
    population (divided by N). The arithmetic is done in float32 (float64 for float64 input).
    Raises ValueError for integers and for a weight or bias of another size.
    """
    check_norm("layer_norm", x, weight=weight, bias=bias)
    backend = layer_norm_backend(x, weight, bias)
    if backend == "triton":
        from ..triton.layer_norm import layer_norm as fused

        return fused(x, weight, bias, eps)
    if backend == "torch":
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return layer_norm_reference(x, weight, bias, eps)


def layer_norm_reference(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """The definition of `layer_norm`."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        normed = normed * weight
    if bias is not None:
        normed = normed + bias
    return normed.to(x.dtype)


def layer_norm_backend(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> str:
    """Which path `layer_norm` takes for these arguments.

    triton      plain CUDA tensors, rows of at most 16384; not while torch.compile traces, for Inductor fuses the norm
                with what stands beside it.
    torch       torch.nn.functional.layer_norm: everything else where weight and bias have the dtype of x.
    reference   the rest.
    """
    parameters = [parameter for parameter in (weight, bias) if parameter is not None]
    if x.is_cuda and fits_triton(x, weight, bias) and x.shape[-1] <= MAX_COLUMNS and not fuses_elsewhere():
        rows = all(parameter.shape == x.shape[-1:] and parameter.is_contiguous() for parameter in parameters)
        if rows:
            return "triton"
    return "torch" if all(parameter.dtype == x.dtype for parameter in parameters) else "reference"

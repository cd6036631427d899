"""Root-mean-square normalization (https://arxiv.org/abs/1910.07467)."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, in the dtype and shape of x.

    The arithmetic is done in float32 (float64 for float64 input): a sum of squares in bfloat16 loses the
    small terms. weight: (x.shape[-1],) or None for the weightless norm.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is not None:
        normed = normed * weight
    return normed.to(x.dtype)

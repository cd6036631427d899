"""Normalization layers, by name.

Dimensions: ... any leading, D model width.
"""

import torch
from torch import Tensor, nn

from gpt_kernels import layer_norm, rms_norm


class LayerNorm(nn.Module):
    """(x − mean) / sqrt(var + eps) · weight + bias over the last dimension."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class LayerNormNoBias(nn.Module):
    """LayerNorm without the additive bias."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, eps=self.eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight, computed in float32."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class WeightlessRMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps), computed in float32; the next linear map has the gain."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, eps=self.eps)


NORMS: dict[str, type[nn.Module]] = {
    "layernorm": LayerNorm,
    "layernorm_nobias": LayerNormNoBias,
    "rmsnorm": RMSNorm,
    "rmsnorm_weightless": WeightlessRMSNorm,
}

"""The operations that can be benchmarked, by name."""

from __future__ import annotations

from . import attention, losses, matrix, pointwise
from .case import Cases

OPS: dict[str, Cases] = {
    "rms_norm": pointwise.rms_norm,
    "layer_norm": pointwise.layer_norm,
    "rotary": pointwise.rotary,
    "swiglu": pointwise.swiglu,
    "transpose": pointwise.transpose,
    "relu2_mlp": matrix.relu2_mlp,
    "symmetric": matrix.symmetric,
    "polar_express": matrix.polar_express,
    "attention": attention.attention,
    "cross_entropy": losses.cross_entropy,
    "softcapped_cross_entropy": losses.softcapped_cross_entropy,
    "linear_cross_entropy": losses.linear_cross_entropy,
    "fp8_linear": losses.fp8_linear,
    "fp8_head": losses.fp8_head,
}

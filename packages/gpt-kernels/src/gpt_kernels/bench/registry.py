"""The operations that can be benchmarked, by name."""

from __future__ import annotations

from . import matrix, pointwise
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
}

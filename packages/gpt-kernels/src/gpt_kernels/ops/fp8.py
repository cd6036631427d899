"""Eight-bit floats: casts that saturate, and the scales that bring a tensor into their range.

A tensor x is held as q = x / scale in float8, so that x ≈ q · scale: `scale` is what torch's scaled products take.
e4m3 (three bits of mantissa, up to 448) suits activations and weights, e5m2 (two bits, up to 57344) gradients
(arXiv:2209.05433).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .dispatch import fits_triton

E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
FLOAT8 = (E4M3, E5M2)

Scale = Tensor | float | None

SMALLEST_AMAX = 2.0**-100
"""Tensors smaller than this are scaled as if they were not: the scale of a tensor of zeros must not be 0."""


def saturating_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x in `dtype`; for float8 the values beyond its range, infinities too, become its largest, and nan stays nan.

    A plain cast to e5m2 overflows to infinity, and what one to e4m3 does has changed with torch's version and device.
    """
    if dtype not in FLOAT8:
        return x.to(dtype)
    largest = torch.finfo(dtype).max
    return x.clamp(-largest, largest).to(dtype)


def quantize(x: Tensor, scale: Tensor | float, dtype: torch.dtype = E4M3) -> Tensor:
    """x / scale in float8, saturating; the division is done in float32. scale: a number or a tensor that holds one.

    Raises ValueError for a dtype that is not one of the two, and for a number that is not positive.
    """
    if dtype not in FLOAT8:
        raise ValueError(f"dtype must be one of {', '.join(map(str, FLOAT8))}, got {dtype}")
    return saturating_cast(x.float() / as_scale(scale, x), dtype)  # CUDA multiplies by the reciprocal of a number


def dequantize(q: Tensor, scale: Tensor | float, dtype: torch.dtype = torch.float32) -> Tensor:
    """q · scale, worked out in float32."""
    return (q.float() * scale).to(dtype)


def scale_of_amax(amax: Tensor, dtype: torch.dtype = E4M3, *, headroom: float = 1.0) -> Tensor:
    """The scale with which `headroom` times the magnitude `amax` is the largest number of `dtype`; float32."""
    return amax.float().clamp_min(SMALLEST_AMAX) * (headroom / torch.finfo(dtype).max)


def largest_magnitude(x: Tensor) -> Tensor:
    """max |x|, 0-d, 0 for no values; one pass, and no copy of |x|."""
    if not x.numel():
        return torch.zeros((), device=x.device)
    low, high = torch.aminmax(x.detach())
    return torch.maximum(-low, high)


def dynamic_scale(x: Tensor, dtype: torch.dtype = E4M3, *, headroom: float = 1.0) -> Tensor:
    """The scale that just fits the values that x has now; 0-d float32."""
    return scale_of_amax(largest_magnitude(x), dtype, headroom=headroom)


def as_scale(scale: Scale, x: Tensor) -> Tensor:
    """0-d float32 on the device of x; a None is worked out from x."""
    if scale is None:
        return dynamic_scale(x)
    if isinstance(scale, Tensor):
        if scale.numel() != 1:
            raise ValueError(f"a scale is one number for the whole tensor, got shape {tuple(scale.shape)}")
        return scale.detach().to(x.device, torch.float32).reshape(())
    if not scale > 0:
        raise ValueError(f"a scale must be positive, got {scale}")
    return torch.full((), scale, dtype=torch.float32, device=x.device)


def delayed_scale(history_H: Tensor, dtype: torch.dtype = E4M3, *, headroom: float = 1.0) -> Tensor:
    """The scale that fits the largest of the magnitudes seen in the last H calls; 0-d float32.

    history (H,) float32, the newest first, as `record_amax` keeps it; zeros stand for calls that have not been.
    """
    return scale_of_amax(_finite(history_H).amax(), dtype, headroom=headroom)


@torch.no_grad()
def record_amax(history_H: Tensor, amax: Tensor) -> None:
    """Put a magnitude in front of the history, in place, and let the oldest go. One that is not finite counts as a call
    that has not been: it would make every scale useless until it is forgotten."""
    history_H.copy_(torch.cat([_finite(amax).to(history_H.dtype).reshape(1), history_H[:-1]]))


def has_seen(history_H: Tensor) -> Tensor:
    """Whether the history holds anything to make a scale of; 0-d bool."""
    return _finite(history_H).amax() > 0


def _finite(magnitudes: Tensor) -> Tensor:
    return magnitudes.nan_to_num(0.0, 0.0, 0.0)


def kernels_write(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether Triton converts to this dtype on the GPU; to e4m3 only where there are float8 units."""
    if dtype != E4M3:
        return True
    properties = torch.cuda.get_device_properties(device)
    return (properties.major, properties.minor) >= (8, 9)


def quantize_both(x_MN: Tensor, scale: Tensor, dtype: torch.dtype, *, transposed: bool) -> tuple[Tensor, Tensor]:
    """(q, qᵀ), both stored by rows: x / scale in float8, and the same transposed, (0,) where that is not wanted.

    On CUDA one Triton kernel reads x once for both, for e4m3 from compute capability 8.9 on.
    """
    if fits_triton(x_MN) and kernels_write(dtype, x_MN.device):
        from ..triton.fp8 import quantize_fp8

        return quantize_fp8(x_MN, scale, dtype, transposed)
    q_MN = quantize(x_MN, scale, dtype).contiguous()
    return q_MN, q_MN.t().contiguous() if transposed else q_MN.new_empty(0)

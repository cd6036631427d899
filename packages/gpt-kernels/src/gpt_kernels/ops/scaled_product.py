"""The product of two float8 matrices: torch._scaled_mm under CUDA's rules on every device, and its definition."""

from __future__ import annotations

import torch
from torch import Tensor

from .fp8 import E5M2, FLOAT8


def scaled_product(
    a_MK: Tensor, b_KN: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype, fast_accumulation: bool = False
) -> Tensor:
    """(a · a_scale)(b · b_scale) in `dtype`, added up in float32 unless accumulation may be fast.

    a by rows and b by columns (a transposed view of one by rows), both float8, not both e5m2; K and N multiples of 16.
    ValueError otherwise: CUDA would refuse, while torch's CPU version takes more.
    """
    check_factors(a_MK, b_KN)
    if not (a_MK.is_contiguous() and b_KN.t().is_contiguous()):
        raise ValueError(
            "the left factor must be stored by rows and the right one by columns, got strides "
            f"{a_MK.stride()} and {b_KN.stride()}"
        )
    check_multiples(inner=a_MK.shape[1], columns=b_KN.shape[1])
    return torch._scaled_mm(
        a_MK, b_KN, scale_a=a_scale, scale_b=b_scale, out_dtype=dtype, use_fast_accum=fast_accumulation
    )


def emulated_product(
    a_MK: Tensor, b_KN: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype, fast_accumulation: bool = False
) -> Tensor:
    """The definition of `scaled_product`, for any size and order; its accumulation is never fast."""
    check_factors(a_MK, b_KN)
    with torch.autocast(a_MK.device.type, enabled=False):  # it would round the sums
        return ((a_MK.float() @ b_KN.float()) * (a_scale * b_scale)).to(dtype)


def check_factors(a_MK: Tensor, b_KN: Tensor) -> None:
    if a_MK.dtype not in FLOAT8 or b_KN.dtype not in FLOAT8 or a_MK.dtype == b_KN.dtype == E5M2:
        raise ValueError(f"factors must be float8, and not both float8_e5m2; got {a_MK.dtype} and {b_KN.dtype}")


def check_multiples(**sizes: int) -> None:
    """ValueError unless all are positive multiples of 16, as float8 products need them."""
    wrong = {name: size for name, size in sizes.items() if size % 16 or not size}
    if wrong:
        raise ValueError(
            f"float8 products need sizes in multiples of 16, got {wrong}; use backend='auto' or 'emulated'"
        )

"""The gated activation of SwiGLU (https://arxiv.org/abs/2002.05202)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .checks import check_floats
from .dispatch import fits_triton, fuses_elsewhere


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, elementwise, for gate and up (..., N) of one shape and dtype; silu(x) = x · sigmoid(x).

    For one projection that makes both, `swiglu(*x.chunk(2, -1))`: the kernel reads them where they lie. It keeps gate
    and up for backward, the definition silu(gate) as well. Raises ValueError where shapes or dtypes differ, and for
    integers.
    """
    check_floats("swiglu", gate, up)
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"swiglu needs gate and up of one shape and dtype, got {tuple(gate.shape)} {gate.dtype} and "
            f"{tuple(up.shape)} {up.dtype}"
        )
    if swiglu_backend(gate, up) == "triton":
        from ..triton.swiglu import swiglu as fused

        return fused(gate, up)
    return swiglu_reference(gate, up)


def swiglu_reference(gate: Tensor, up: Tensor) -> Tensor:
    """The definition of `swiglu`."""
    return F.silu(gate) * up


def swiglu_backend(gate: Tensor, up: Tensor) -> str:
    """Which path `swiglu` takes for these arguments: "triton" (plain CUDA tensors) or "torch".

    While torch.compile traces it is "torch": Inductor fuses the activation with what stands beside it.
    """
    return "triton" if gate.is_cuda and fits_triton(gate, up) and not fuses_elsewhere() else "torch"

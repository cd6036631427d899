"""Which tensors a Triton kernel may be given: a question about the arguments alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HAS_TRITON = importlib.util.find_spec("triton") is not None
"""Whether triton is installed; it is not imported to find out."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
"""What the kernels read and write. They compute in float32: float64 stays with the references."""


def fits_triton(*tensors: Tensor | None, dtypes: tuple[torch.dtype, ...] = FLOATS) -> bool:
    """Whether all are plain tensors (no DTensor or other subclass) of these dtypes on one Triton-capable CUDA device.

    None stands for an argument left out. Empty tensors go to the references, as do GPUs older than Ampere (sm_80).
    """
    present = [tensor for tensor in tensors if tensor is not None]
    if not present[0].is_cuda or not HAS_TRITON or not are_plain(present, dtypes):
        return False
    # Not get_device_capability: torch.compile folds only this one.
    return torch.cuda.get_device_properties(present[0].device).major >= 8


def are_plain(tensors: Sequence[Tensor], dtypes: tuple[torch.dtype, ...] = FLOATS) -> bool:
    """Whether all are plain tensors of these dtypes on the device of the first, and none is empty."""
    for tensor in tensors:
        plain = type(tensor) in (Tensor, torch.nn.Parameter)
        if not (plain and tensor.device == tensors[0].device and tensor.dtype in dtypes and tensor.numel()):
            return False
    return True


def fuses_elsewhere() -> bool:
    """Whether torch.compile is tracing: Inductor fuses a pointwise reference with its neighbours, which beats any
    kernel of its own that it cannot look into. Matrix kernels do not ask."""
    return torch.compiler.is_compiling()


def autocast_together(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the dtype that autocast asks of matrix products; as they are where it is off."""
    return tuple(tensor.to(autocast_dtype(tensor)) for tensor in tensors)


def autocast_dtype(x: Tensor) -> torch.dtype:
    """What autocast makes of a factor of a matrix product; its own dtype where autocast is off."""
    device = x.device.type
    if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return x.dtype
    return torch.get_autocast_dtype(device)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """Autocast is an order to all products; those inside have a dtype of their own."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()

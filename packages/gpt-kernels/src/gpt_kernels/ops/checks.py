"""What operations refuse alike: a ValueError that says what was got, what is expected and what to do.

Only sizes and dtypes are looked at, never values: the checks cost nothing on a GPU and trace in one graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_floats(op: str, *tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and not tensor.is_floating_point():
            raise ValueError(f"{op} needs tensors of a float dtype, got {tensor.dtype}; convert it with .float()")


def check_one_dtype(op: str, *tensors: Tensor) -> None:
    """As matrix products need it, but for autocast, which gives them one."""
    dtypes = [tensor.dtype for tensor in tensors]
    if any(dtype != dtypes[0] for dtype in dtypes) and not _autocasts(tensors[0].device.type):
        raise ValueError(f"{op} needs tensors of one dtype, got {', '.join(map(str, dtypes))}; cast with .to(dtype)")


def check_norm(op: str, x: Tensor, **parameters: Tensor | None) -> None:
    """Of a norm over the last dimension: floats, and parameters with a value for each channel."""
    check_floats(op, x, *parameters.values())
    if not x.dim():
        raise ValueError(f"{op} needs at least one dimension, got a single number")
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != x.shape[-1:]:
            raise ValueError(
                f"{name} of {op} must be ({x.shape[-1]},), a value for each channel of x {tuple(x.shape)}, "
                f"got {tuple(parameter.shape)}"
            )


def check_linear(op: str, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    if not x.dim() or weight.dim() != 2 or weight.shape[1] != x.shape[-1]:
        inputs = x.shape[-1] if x.dim() else "I"
        raise ValueError(
            f"weight of {op} must be (O, {inputs}) for x {tuple(x.shape)}, got {tuple(weight.shape)}; "
            "one stored as (I, O) is passed as weight.t()"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias of {op} must be ({weight.shape[0]},), got {tuple(bias.shape)}")
    check_floats(op, x, weight, bias)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether a tensor of `shape` can stand where one of shape `to` is needed."""
    behind = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, needed) for size, needed in behind)


def _autocasts(device: str) -> bool:
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)

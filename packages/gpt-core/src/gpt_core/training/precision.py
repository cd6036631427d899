"""The dtypes that a run computes in. Weights, gradients and optimizer state stay float32 (autocast)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from gpt_kernels import convert_to_fp8

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16 or AMX); elsewhere they are emulated,
    slowly."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: float32 on a CPU; bfloat16 on a GPU that has it, else float16. `fastest`: also bfloat16 on a CPU that
    has it."""
    if name in DTYPES:
        return DTYPES[name]
    if name not in ("auto", "fastest"):
        raise ValueError(f"general.dtype is {name!r}; use one of auto, fastest, {', '.join(DTYPES)}")
    if device.type == "cuda":
        # emulated bfloat16 (a V100) does not count: it is slower than float32
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if name == "fastest" and cpu_has_bfloat16() else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Context for forward and loss; nothing to do for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def multiply_in_float8(model: nn.Module) -> None:
    """Replace the linear maps of `model.blocks`, in place, by ones that multiply in float8 where the GPU can.

    Parameters and their names stay; each tensor is scaled by its largest magnitude. The head stays as it is. ValueError
    for a model without blocks, or without linear maps whose inputs and outputs are multiples of 16.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise ValueError(f"training.fp8 needs a model with .blocks; {type(model).__name__} has none")
    try:
        convert_to_fp8(blocks)
    except ValueError as error:
        raise ValueError(f"training.fp8: {error} (inputs and outputs must be multiples of 16)") from error

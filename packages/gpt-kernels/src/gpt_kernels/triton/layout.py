"""Memory layouts and launch sizes that the kernels share.

A tensor is *row-dense* when it fills its memory without holes and its last dimension is innermost: its rows can then be
visited in the order of memory, whatever the order of the other dimensions. Heads cut from (B, T, H, K) and shown as
(B, H, T, K) are: operations over K need no copy of them.
"""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor


def empty_rows_like(x: Tensor) -> Tensor:
    """Uninitialised and row-dense, with the strides of x where x is row-dense itself."""
    out = torch.empty_like(x)
    return out if out.stride(-1) == 1 else torch.empty_like(x, memory_format=torch.contiguous_format)


def with_strides_of(x: Tensor, template: Tensor) -> Tensor:
    """x, copied where its strides differ from those of the row-dense template of the same shape."""
    return x if x.stride() == template.stride() else torch.empty_like(template, dtype=x.dtype).copy_(x)


def rows_of(x: Tensor) -> Tensor:
    """(M, N) with innermost columns, a view where the rows lie at equal distances."""
    N = x.shape[-1] if x.dim() else 1
    x_MN = x.reshape(math.prod(x.shape[:-1]), N)
    return x_MN if N == 1 or x_MN.stride(1) == 1 else x_MN.contiguous()


def row_tiles(rows: int, columns: int) -> tuple[int, int, int]:
    """(rows of a tile, columns rounded up to a power of two, warps) for kernels that hold whole rows in registers.

    4096 values a tile keep 16-byte loads and enough of them in flight; longer rows get more warps, not more tiles.
    """
    width = triton.next_power_of_2(columns)
    height = max(1, min(4096 // width, triton.next_power_of_2(rows)))
    return height, width, min(max(height * width // 1024, 1), 16)


def summing_row_tiles(rows: int, columns: int, device: torch.device) -> tuple[int, int, int, int]:
    """The same, and how many programs, for kernels that also keep sums over the rows they take: half the values a tile
    and twice the warps, for registers; as many programs as are resident at once, so that all end together."""
    width = triton.next_power_of_2(columns)
    height = max(1, min(2048 // width, triton.next_power_of_2(rows)))
    warps = min(max(height * width // 512, 1), 16)
    resident = max(1, 8192 // (height * width))
    return height, width, warps, min(triton.cdiv(rows, height), min(resident, 4) * processors(device))


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 2 for the interpreter, so that tests see programs that take several tiles."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


class Tiles(NamedTuple):
    """How a matrix product is cut: rows, columns and depth of a tile, its warps, and the loads under way at once."""

    M: int
    N: int
    K: int
    warps: int
    stages: int


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program may have."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def on_device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Kernels launch on the current device, which need not be that of the tensors."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()

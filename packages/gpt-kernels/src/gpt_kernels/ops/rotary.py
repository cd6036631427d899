"""Rotary position embedding (https://arxiv.org/abs/2104.09864).

Dimensions: B batch, H heads, T tokens, K head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import broadcasts, check_floats
from .dispatch import FLOATS, fits_triton, fuses_elsewhere

ROTARY_STYLES = ("interleaved", "half")


def rotary_table(
    positions: int | Tensor,
    head_dim: int,
    theta: float = 10_000.0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the angle p · theta^(−2i / head_dim), each of shape (*positions.shape, head_dim / 2).

    positions: a count n (meaning 0 … n−1) or a tensor of absolute positions. Angles are computed in float64
    whatever the dtype of the result: float32 loses whole radians at positions of some 10⁶.
    """
    if head_dim % 2 or head_dim < 2:
        raise ValueError(f"rotary embedding needs an even head dimension of at least 2, got {head_dim}")
    if not theta > 0:
        raise ValueError(f"theta must be positive, got {theta}; 10000 is the usual one")
    if isinstance(positions, int) and positions < 0:
        raise ValueError(f"a count of positions is 0 or more, got {positions}")
    if isinstance(positions, int):
        positions = torch.arange(positions, device=device)
    pair = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device)
    angle = positions.double().unsqueeze(-1) * theta ** (-pair / head_dim)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def apply_rotary(x_BHTK: Tensor, cos: Tensor, sin: Tensor, *, style: str = "interleaved") -> Tensor:
    """Rotate each pair of channels of x by its angle; shape and dtype of x are kept.

    cos, sin: (T, K/2), or anything that broadcasts to (B, H, T, K/2), e.g. (B, 1, T, K/2) for positions that
    differ between sequences. style "interleaved" pairs channels (2i, 2i+1), as in the paper; "half" pairs
    (i, i + K/2), as Hugging Face checkpoints do. Either turns (a, b) into (a·cos − b·sin, a·sin + b·cos).

    Tables of fewer columns, R from 2 to K/2 − 1, turn the first 2R channels and leave the others as they are (as if
    K were 2R), as in GPT-NeoX and the half-truncated tables of the speedrun: see `half_truncated_frequencies`.
    Raises ValueError for shapes, dtypes and styles that do not fit.
    """
    _check(x_BHTK, cos, sin, style)
    if x_BHTK.is_cuda and apply_rotary_backend(x_BHTK, cos, sin, style=style) == "triton":
        from ..triton.rotary import apply_rotary as fused

        return fused(x_BHTK, cos, sin, style == "interleaved")
    return apply_rotary_reference(x_BHTK, cos, sin, style=style)


def apply_rotary_reference(x_BHTK: Tensor, cos: Tensor, sin: Tensor, *, style: str = "interleaved") -> Tensor:
    """The definition of `apply_rotary`."""
    if 2 * cos.shape[-1] < x_BHTK.shape[-1] and cos.shape[-1] > 1:
        turned, kept = x_BHTK.split((2 * cos.shape[-1], x_BHTK.shape[-1] - 2 * cos.shape[-1]), -1)
        return torch.cat((apply_rotary_reference(turned, cos, sin, style=style), kept), -1)
    if style == "interleaved":
        return _rotate_interleaved(x_BHTK, cos, sin)
    if style == "half":
        # cos · (a, b) + sin · (−b, a), in one multiply and one fused multiply-add over the whole head
        a, b = x_BHTK.chunk(2, -1)
        turned = x_BHTK * torch.cat((cos, cos), -1)
        return torch.addcmul(turned, torch.cat((b, a), -1), torch.cat((-sin, sin), -1)).to(x_BHTK.dtype)
    raise ValueError(f"unknown rotary style {style!r}; choose one of {', '.join(ROTARY_STYLES)}")


def apply_rotary_backend(x_BHTK: Tensor, cos: Tensor, sin: Tensor, *, style: str = "interleaved") -> str:
    """Which path `apply_rotary` takes for these arguments: "triton" (plain CUDA tensors, x of four dimensions, tables
    that need no gradient and have innermost columns, heads of at most 1024) or "torch".

    While torch.compile traces it is "torch": Inductor fuses the rotation with what stands beside it.
    """
    if not fits_triton(x_BHTK, cos, sin, dtypes=FLOATS) or style not in ROTARY_STYLES or fuses_elsewhere():
        return "torch"
    same = cos.shape == sin.shape and cos.stride() == sin.stride() and cos.stride(-1) == 1
    fits = x_BHTK.dim() == 4 and x_BHTK.shape[-1] <= 1024 and 2 <= 2 * cos.shape[-1] <= x_BHTK.shape[-1]
    broadcast = cos.shape[-1] == 1 and x_BHTK.shape[-1] > 2
    return "triton" if same and fits and not broadcast and not (cos.requires_grad or sin.requires_grad) else "torch"


def _check(x: Tensor, cos: Tensor, sin: Tensor, style: str) -> None:
    if style not in ROTARY_STYLES:
        raise ValueError(f"unknown rotary style {style!r}; choose one of {', '.join(ROTARY_STYLES)}")
    check_floats("apply_rotary", x, cos, sin)
    K = x.shape[-1] if x.dim() else 0
    pairs = cos.shape[-1] if cos.dim() else 0
    if K % 2 or not 1 <= pairs <= K // 2:
        raise ValueError(
            f"apply_rotary needs an even head dimension K and tables of at most K / 2 columns, got x {tuple(x.shape)} "
            f"and cos {tuple(cos.shape)}; rotary_table(positions, K) makes them"
        )
    if cos.shape != sin.shape or not broadcasts(cos.shape[:-1], x.shape[:-1]):
        raise ValueError(
            f"cos and sin must have one shape whose rows broadcast to those of x {tuple(x.shape)}, got "
            f"{tuple(cos.shape)} and {tuple(sin.shape)}; a table of more positions is cut as cos[:T]"
        )


def _rotate_interleaved(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        # Neighbouring channels are the parts of a complex number: one product, 4x faster in eager mode on CPU.
        # Inductor has no complex kernels, and complex bfloat16 does not exist.
        if cos.dtype == torch.float32 and x_BHTK.dtype in (torch.bfloat16, torch.float16):
            wide_BHTK = x_BHTK.to(torch.float32, memory_format=torch.contiguous_format)
            return _rotate_interleaved(wide_BHTK, cos, sin).to(x_BHTK.dtype)
        if _viewable_as_complex(x_BHTK, cos):
            turned = torch.view_as_complex(x_BHTK.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)
            return torch.view_as_real(turned).flatten(-2)
    a, b = x_BHTK.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x_BHTK.dtype)


def _viewable_as_complex(x: Tensor, cos: Tensor) -> bool:
    same_dtype = x.dtype == cos.dtype and x.dtype in (torch.float32, torch.float64)
    even = (x.storage_offset(), *x.stride()[:-1])
    return bool(same_dtype and x.stride(-1) == 1 and all(number % 2 == 0 for number in even))

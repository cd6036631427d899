"""Rotary position embedding (https://arxiv.org/abs/2104.09864).

Dimensions: B batch, H heads, T tokens, K head dimension.
"""

import torch
from torch import Tensor

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
    if head_dim % 2:
        raise ValueError(f"rotary embedding needs an even head dimension, got {head_dim}")
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
    """
    if style == "interleaved":
        return _rotate_interleaved(x_BHTK, cos, sin)
    if style == "half":
        # cos · (a, b) + sin · (−b, a), in one multiply and one fused multiply-add over the whole head
        a, b = x_BHTK.chunk(2, -1)
        turned = x_BHTK * torch.cat((cos, cos), -1)
        return torch.addcmul(turned, torch.cat((b, a), -1), torch.cat((-sin, sin), -1)).to(x_BHTK.dtype)
    raise ValueError(f"unknown rotary style {style!r}; choose one of {', '.join(ROTARY_STYLES)}")


def _rotate_interleaved(x_BHTK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    pairs = x_BHTK.unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling() and _viewable_as_complex(x_BHTK, cos):
        # Neighbouring channels are the parts of a complex number: one product, 4x faster in eager mode on CPU.
        # Inductor has no complex kernels, and complex bfloat16 does not exist.
        turned = torch.view_as_complex(pairs) * torch.complex(cos, sin)
        return torch.view_as_real(turned).flatten(-2)
    a, b = pairs.unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x_BHTK.dtype)


def _viewable_as_complex(x: Tensor, cos: Tensor) -> bool:
    same_dtype = x.dtype == cos.dtype and x.dtype in (torch.float32, torch.float64)
    even = (x.storage_offset(), *x.stride()[:-1])
    return bool(same_dtype and x.stride(-1) == 1 and all(number % 2 == 0 for number in even))

"""Rows laid end to end, as the kernels for packed documents take them."""

from __future__ import annotations

import torch
from torch import Tensor


def tokens(x_BHTK: Tensor) -> Tensor:
    """(B · T, H, K)"""
    return x_BHTK.transpose(1, 2).flatten(0, 1)


def row_ends(B: int, T: int, device: torch.device) -> Tensor:
    """cu_seqlens of B rows of T tokens laid end to end"""
    return torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=device)

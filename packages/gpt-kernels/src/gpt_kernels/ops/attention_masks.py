"""The boolean masks that the arguments of `attention` mean: T queries by S keys, True = attend."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(
    T: int,
    S: int,
    *,
    causal: bool = True,
    window: int | None = None,
    mask: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor | None:
    """Bool mask of the keys each query sees, (T, S) or the broadcast with `mask`; None when it hides none."""
    if not causal or (T == 1 and window is None):
        return mask
    query_T1 = torch.arange(S - T, S, device=device).unsqueeze(1)
    key_S = torch.arange(S, device=device)
    seen_TS = key_S <= query_T1
    if window is not None:
        seen_TS = seen_TS & (key_S > query_T1 - window)
    return seen_TS if mask is None else seen_TS & mask


def document_mask(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T, T) bool: which tokens of a packed row belong to the same document."""
    document_T = document_numbers(cu_seqlens, T)
    return document_T.unsqueeze(1) == document_T


def document_numbers(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T,) which document of a packed row each token belongs to, counted from 1."""
    token_T = torch.arange(T, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens.to(token_T.dtype), token_T, right=True)

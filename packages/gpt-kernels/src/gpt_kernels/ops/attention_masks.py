"""The boolean masks that the arguments of `attention` mean: T queries by S keys, True = attend."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from .checks import broadcasts


def attention_mask(
    T: int,
    S: int,
    *,
    causal: bool = True,
    window: int | None = None,
    mask: Tensor | None = None,
    device: torch.device | str | None = None,
) -> Tensor | None:
    """Bool mask of the keys each query sees, (T, S) or the broadcast with `mask`; None when it hides none.

    Raises ValueError for a window without a key, and for a mask that is not bool or does not broadcast.
    """
    check_window(window, causal)
    if mask is not None:
        check_mask(mask, T, S)
    if not causal or (T == 1 and window is None):
        return mask
    query_T1 = torch.arange(S - T, S, device=device).unsqueeze(1)
    key_S = torch.arange(S, device=device)
    seen_TS = key_S <= query_T1
    if window is not None:
        seen_TS = seen_TS & (key_S > query_T1 - window)
    return seen_TS if mask is None else seen_TS & mask


def document_mask(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T, T) bool: which tokens of a packed row belong to the same document.

    cu_seqlens (D+1,) integers from 0 to T, as in `attention`, which checks what they hold: ValueError.
    """
    check_cu_seqlens(cu_seqlens, T)
    document_T = document_numbers(cu_seqlens, T)
    return document_T.unsqueeze(1) == document_T


def document_numbers(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T,) which document of a packed row each token belongs to, counted from 1."""
    token_T = torch.arange(T, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens.to(token_T.dtype), token_T, right=True)


def check_window(window: int | None, causal: bool) -> None:
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"window needs causal=True and at least 1 key, got window={window}, causal={causal}")


def check_mask(mask: Tensor, T: int, S: int) -> None:
    if mask.dtype != torch.bool:
        raise ValueError(
            f"mask must be bool, True = attend, got {mask.dtype}; one that is added is passed as mask == 0"
        )
    if not broadcasts(mask.shape[-2:], (T, S)):
        raise ValueError(f"mask must broadcast to (..., {T}, {S}): queries and keys; got {tuple(mask.shape)}")


def check_cu_seqlens(cu_seqlens: Tensor, T: int) -> None:
    """Its values on CPUs in eager mode only: a GPU would have to be waited for, a graph would break."""
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"cu_seqlens must be (D + 1,) int32, the ends of D documents behind a 0, got {tuple(cu_seqlens.shape)} "
            f"{cu_seqlens.dtype}"
        )
    if type(cu_seqlens) is not Tensor or cu_seqlens.device.type != "cpu" or torch.compiler.is_compiling():
        return
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != T or any(a > b for a, b in itertools.pairwise(ends)):
        raise ValueError(f"cu_seqlens must rise from 0 to the {T} tokens of the row, got {cu_seqlens}")

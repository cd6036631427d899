"""torch.nn.attention.varlen: rows of any lengths laid end to end, on CUDA in half precision.

It works on (tokens, heads, channels), and counts windows in keys to the left: ours count the query too.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch.nn.attention.varlen as torch_varlen
from torch import Tensor

from .packing import row_ends, tokens

TAKES_GROUPS = "enable_gqa" in inspect.signature(torch_varlen.varlen_attn).parameters
"""Whether this torch has fewer key/value heads than query heads in its contract (2.12 and later)."""


def varlen(
    q_BHTK: Tensor,
    k_BGTK: Tensor,
    v_BGTK: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    cu_seqlens: Tensor | None,
    max_seqlen: int | None,
) -> Tensor:
    """Documents that cu_seqlens bounds in a single row; without it every row is one document."""
    B, H, T, K = q_BHTK.shape
    ends = row_ends(B, T, q_BHTK.device) if cu_seqlens is None else cu_seqlens.int()
    longest = T if max_seqlen is None else max_seqlen
    options: dict[str, Any] = {"enable_gqa": True} if TAKES_GROUPS and k_BGTK.shape[1] != H else {}
    if k_BGTK.shape[1] != H and not options:
        repeat = H // k_BGTK.shape[1]
        k_BGTK, v_BGTK = (x.repeat_interleave(repeat, 1) for x in (k_BGTK, v_BGTK))
    out_NHK = torch_varlen.varlen_attn(
        *(tokens(x) for x in (q_BHTK, k_BGTK, v_BGTK)),
        ends,
        ends,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0 if causal else -1),
        **options,
    )
    assert isinstance(out_NHK, Tensor)
    return out_NHK.view(B, T, H, K).transpose(1, 2)

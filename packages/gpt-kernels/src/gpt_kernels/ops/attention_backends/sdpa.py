"""torch.nn.functional.scaled_dot_product_attention, whole or document by document."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention_masks import attention_mask


def sdpa(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    mask: Tensor | None,
    dropout: float,
) -> Tensor:
    """torch's fused attention; its own is_causal is right only for T == S, other cases pass a mask.

    Its options must be bools also where torch.compile traces sizes as symbols: comparing those gives a symbol too.
    """
    T, S = q_BHTK.shape[2], k_BGSK.shape[2]
    is_causal = True if causal and T == S and window is None and mask is None and T > 1 else False  # noqa: SIM210
    if not is_causal:
        mask = attention_mask(T, S, causal=causal, window=window, mask=mask, device=q_BHTK.device)
    grouped = True if q_BHTK.shape[1] != k_BGSK.shape[1] else False  # noqa: SIM210
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=grouped,
    )


def sdpa_by_document(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    cu_seqlens: Tensor,
    causal: bool,
    window: int | None,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """Each document on its own: the scores of different documents are never worked out."""
    ends = cu_seqlens.tolist()
    lengths = [b - a for a, b in itertools.pairwise(ends) if b > a] or [0]
    parts = zip(*(x.split(lengths, 2) for x in (q_BHTK, k_BGSK, v_BGSK)), strict=True)
    outs = [sdpa(q, k, v, causal, _shorter(window, q.shape[2]), scale, None, dropout) for q, k, v in parts]
    return torch.cat(outs, 2)


def _shorter(window: int | None, length: int) -> int | None:
    """None where the window holds the whole document: then nothing needs a mask."""
    return None if window is None or window >= length else window

"""Attention within a window, block by block of queries: work grows with T · window, not T².

All heads of all rows are laid end to end, as one sequence of M = B · H · T positions. A block of C queries and the
W − 1 positions before it are the S = C + W − 1 keys that it may see: one view, without a copy, in which blocks share
keys. A bound for every query, the first key that it sees, keeps heads, rows and documents apart.

Dimensions: B rows, H heads, T tokens, K head dimension, W window, C queries and S keys of a block, N blocks of a head,
J = B · H · N of all.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..derivatives import differentiable_once

NARROW, SHORT_BLOCK, LONG_BLOCK = 128, 32, 64
"""Windows up to NARROW have blocks of 32 queries, wider ones of 64: measured on a CPU."""


def block_of(window: int) -> int:
    """C: queries that share their keys."""
    return SHORT_BLOCK if window <= NARROW else LONG_BLOCK


def banded(
    q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, window: int, scale: float | None, cu_seqlens: Tensor | None
) -> Tensor:
    """Causal attention within `window` keys and the document, (B, H, T, K). Differentiable once."""
    T, repeat = q_BHTK.shape[2], q_BHTK.shape[1] // k_BGTK.shape[1]
    scale = 1 / math.sqrt(q_BHTK.shape[3]) if scale is None else scale
    if repeat > 1:
        k_BGTK, v_BGTK = (x.repeat_interleave(repeat, 1) for x in (k_BGTK, v_BGTK))
    block = block_of(window)
    bias_NCS = _bias(T, window, block, cu_seqlens, q_BHTK)
    q, k, v = (F.pad(x, (0, 0, 0, -T % block)) if T % block else x for x in (q_BHTK, k_BGTK, v_BGTK))
    y_BHTK = _Banded.apply(q, k, v, bias_NCS, window, scale)
    return y_BHTK[:, :, :T] if T % block else y_BHTK


def _bias(T: int, window: int, block: int, cu_seqlens: Tensor | None, like: Tensor) -> Tensor:
    """(N, C, S): 0 for a key that is seen, −inf for others; the same for all heads and rows."""
    token_T = torch.arange(T + -T % block, device=like.device)
    first_T = token_T - (window - 1)
    if cu_seqlens is None:
        first_T = first_T.clamp(min=0)
    else:  # what is behind the last token is padding, a document more
        ends = cu_seqlens.to(token_T.dtype)
        first_T = torch.maximum(first_T, ends[torch.searchsorted(ends, token_T, right=True) - 1])
    key_S = torch.arange(1 - window, block, device=like.device)  # seen from the first query of the block
    first_NC1 = (first_T.view(-1, block) - token_T[::block, None]).unsqueeze(-1)
    hidden_NCS = (key_S < first_NC1) | (key_S > token_T[:block, None])
    return torch.zeros(hidden_NCS.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden_NCS, -torch.inf)


class _Banded(torch.autograd.Function):
    """Keeps the weights, M · S of them, for backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias_NCS: Tensor, window: int, scale: float) -> Tensor:
        C = bias_NCS.shape[1]
        q_JCK = (q * scale).reshape(-1, C, q.shape[3])
        k_MK, v_MK = (torch.cat((x.new_zeros(window - 1, x.shape[3]), x.reshape(-1, x.shape[3]))) for x in (k, v))
        score_JCS = torch.bmm(q_JCK, _shared(k_MK, C, window).mT)
        score_JCS.view(-1, *bias_NCS.shape).add_(bias_NCS)
        weight_JCS = score_JCS.softmax(-1)
        ctx.save_for_backward(q_JCK, k_MK, v_MK, weight_JCS)
        ctx.block, ctx.window, ctx.scale, ctx.leading = C, window, scale, q.shape[:3]
        return torch.bmm(weight_JCS, _shared(v_MK, C, window)).view(*q.shape[:3], v.shape[3])

    @staticmethod
    @differentiable_once("attention with backend 'banded'")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q_JCK, k_MK, v_MK, weight_JCS = ctx.saved_tensors
        grad_JCK = grad.reshape(-1, ctx.block, grad.shape[3])
        whole = lambda x: _sum_of_shares(x, ctx.block).view(*ctx.leading, x.shape[2])
        grad_v = whole(torch.bmm(weight_JCS.mT, grad_JCK))
        slope_JCS = torch.bmm(grad_JCK, _shared(v_MK, ctx.block, ctx.window).mT)
        slope_JCS = torch._softmax_backward_data(slope_JCS, weight_JCS, -1, weight_JCS.dtype)
        grad_q = torch.bmm(slope_JCS, _shared(k_MK, ctx.block, ctx.window)).mul_(ctx.scale)
        grad_k = whole(torch.bmm(slope_JCS.mT, q_JCK))
        return grad_q.view(*ctx.leading, q_JCK.shape[2]), grad_k, grad_v, None, None, None


def _shared(x_MK: Tensor, block: int, window: int) -> Tensor:
    """(J, S, K), a view: what the queries of each block may see. x has window − 1 rows in front of the first block."""
    K, S = x_MK.shape[1], block + window - 1
    return x_MK.as_strided(((len(x_MK) - window + 1) // block, S, K), (block * K, K, 1))


def _sum_of_shares(share_JSK: Tensor, block: int) -> Tensor:
    """(M, K): the adjoint of `_shared`, without the rows in front."""
    J, S, K = share_JSK.shape
    total = share_JSK.new_zeros(J * block + S - block, K)
    for begin in range(0, S, block):
        part = share_JSK[:, begin : begin + block]
        total.as_strided(part.shape, (block * K, K, 1), begin * K).add_(part)  # parts of C rows do not overlap
    return total[S - block :]

"""Heads that mix their attention patterns with weights for every token (record 85), near the token only.

After "Improving Transformers with Dynamically Composable Multi-Head Attention" (Xiao et al. 2024, arXiv:2405.08553).
Dimensions: B rows, H heads, T tokens, K channels of a head, W window, N blocks of W tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_kernels import rms_norm

WINDOW = 112
"""Keys of a token, itself included."""
EPS = 1e-6


def compose(
    q_BHTK: Tensor,
    k_BHTK: Tensor,
    v_BHTK: Tensor,
    w1_BTH: Tensor,
    w2_BTH: Tensor,
    *,
    scale: float,
    cu_seqlens: Tensor | None = None,
    window: int = WINDOW,
) -> Tensor:
    """What the mixed patterns add to every head, (B, H, T, K):

        P_h = softmax(scale · q_h k_hᵀ) over the last `window` keys of the document
        A   = Σ_h n(w1)_h P_h;      out_h = w2_h · A v_h

    w1, w2 (B, T, H); n divides by the root mean square over heads. Blocks of W queries see two blocks of keys, so the
    scores take room for T · 2W, not T².
    """
    T = q_BHTK.shape[2]
    seen_NW2 = _mask(T, window, cu_seqlens, q_BHTK.device)
    q, k, v = (_blocks(x, window) for x in (q_BHTK, k_BHTK, v_BHTK))
    k, v = _with_block_before(k), _with_block_before(v)
    wide = torch.promote_types(q.dtype, torch.float32)
    weights = rms_norm(w1_BTH.to(wide), eps=EPS).to(q.dtype)
    w1, w2 = (_blocks(w.transpose(1, 2).unsqueeze(-1), window) for w in (weights, w2_BTH.to(q.dtype)))
    scores = (q @ k.mT).to(wide) * scale
    patterns = scores.masked_fill(~seen_NW2, -torch.inf).softmax(-1).to(q.dtype)  # (B, H, N, W, 2W)
    mixed = (w1 * patterns).sum(1, keepdim=True)
    return (w2 * (mixed @ v)).flatten(2, 3)[:, :, :T]


def _blocks(x_BHTC: Tensor, window: int) -> Tensor:
    """(B, H, N, W, C), padded at the end."""
    return F.pad(x_BHTC, (0, 0, 0, -x_BHTC.shape[2] % window)).unflatten(2, (-1, window))


def _with_block_before(x_BHNWC: Tensor) -> Tensor:
    """(B, H, N, 2W, C): before the first block are zeros, which the mask hides."""
    return torch.cat((F.pad(x_BHNWC[:, :, :-1], (0, 0, 0, 0, 1, 0)), x_BHNWC), 3)


def _mask(T: int, window: int, cu_seqlens: Tensor | None, device: torch.device) -> Tensor:
    """(N, W, 2W) bool: key within the window and the document; every query sees itself."""
    blocks = -(-T // window)
    token = torch.arange(blocks * window, device=device).view(blocks, window)
    key = torch.cat((token - window, token), 1)[:, None, :]
    query = token[:, :, None]
    seen = (key <= query) & (key > query - window) & (key >= 0)
    if cu_seqlens is None:
        return seen
    document = torch.searchsorted(cu_seqlens.to(token.dtype), token.clamp(max=T - 1), right=True)
    before = torch.cat((document[:1], document[:-1]))
    return seen & (torch.cat((before, document), 1)[:, None, :] == document[:, :, None])

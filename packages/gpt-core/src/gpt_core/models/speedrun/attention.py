"""Attention of a speedrun layer, plain or with pairs of heads.

Dimensions: B rows, T tokens, D width, H heads, K channels of a head, G gate channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_kernels import apply_rotary, attention, linear, rms_norm

from .config import GATE_CHANNELS
from .plan import LayerPlan
from .rotary import Tables

EPS = torch.finfo(torch.float32).eps
"""Of every norm. An embedding's mean square is 2.5e-5 at first: bfloat16's eps, 0.0078, would swallow it."""


class AttentionWeights(NamedTuple):
    """What a layer's attention reads of the banks."""

    qkv: Tensor
    """(3·H·K, D): rows of Q, K and V."""
    out: Tensor
    """(H·K, D), used as (out, in) like every linear map."""
    gate: Tensor | None
    """(H, G)"""
    value_gate: Tensor | None
    """(H, G)"""


class Row(NamedTuple):
    """What all layers of a forward pass share."""

    tables: Tables
    scale: float
    window_short: int | None
    """Tokens before itself that a token sees, None = all of its document."""
    window_long: int | None
    cu_seqlens: Tensor | None
    starts_BT: Tensor | None
    """First tokens of documents, where nothing may cross them."""
    backend: str


def norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension, without a weight, in float32 inside."""
    return rms_norm(x, eps=EPS)


def attend(
    x_BTD: Tensor, weights: AttentionWeights, value_BTD: Tensor | None, plan: LayerPlan, row: Row, heads: int
) -> Tensor:
    """What attention adds to the stream, of the block's normed input x; value_BTD is the layer's value embedding.

    q, k = rope(n(Wq x)), rope(n(Wk x));   v = Wv x + 2σ(g' · x[:12]) · value
    out = Wo (σ(g · x[:12]) · softmax(scale · q kᵀ) v)     within the window and the document
    """
    B, T, _ = x_BTD.shape
    q_BTHK, k_BTHK, v_BTHK = linear(x_BTD, weights.qkv).view(B, T, 3, heads, -1).unbind(2)
    if value_BTD is not None:
        v_BTHK = v_BTHK + _gated(value_BTD.view_as(v_BTHK), x_BTD, weights.value_gate, 2.0)
    core = _paired if plan.attention == "paired" else _plain
    y_BTHK = _gated(core(norm(q_BTHK), norm(k_BTHK), v_BTHK, plan, row), x_BTD, weights.gate)
    return linear(y_BTHK.flatten(2), weights.out)


def _gated(y_BTHK: Tensor, x_BTD: Tensor, gate: Tensor | None, factor: float = 1.0) -> Tensor:
    """y times a sigmoid per head of the first channels of x."""
    if gate is None:
        return y_BTHK
    return y_BTHK * (factor * torch.sigmoid(linear(x_BTD[..., :GATE_CHANNELS], gate))).unsqueeze(-1)


def _plain(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, plan: LayerPlan, row: Row) -> Tensor:
    q_BHTK, k_BHTK = (apply_rotary(x.transpose(1, 2), *row.tables.plain) for x in (q_BTHK, k_BTHK))
    if plan.key_offset:
        k_BHTK = offset_keys(k_BHTK, row.starts_BT)
    return _softmax(q_BHTK, k_BHTK, v_BTHK.transpose(1, 2), plan, row, row.cu_seqlens).transpose(1, 2)


def _paired(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, plan: LayerPlan, row: Row) -> Tensor:
    """Pairs of heads as one head over a sequence of 2T positions, causal in that order.

    Position 2t is heads 0 … H/2 − 1 of token t and 2t + 1 the others: pair j is heads j and j + H/2. The rotary angle
    goes by neighbours instead, head h of token t turning by 2t + (h mod 2): upstream's quirk, which its losses need.
    The window is as many of these positions as of tokens elsewhere: half the tokens.
    """
    B, T, H, K = q_BTHK.shape
    turn = lambda x: apply_rotary(x.reshape(B, T, H // 2, 2 * K).transpose(1, 2), *row.tables.paired).transpose(1, 2)
    double = lambda x: x.reshape(B, 2 * T, H // 2, K).transpose(1, 2)
    cu_seqlens = None if row.cu_seqlens is None else 2 * row.cu_seqlens
    y = _softmax(double(turn(q_BTHK)), double(turn(k_BTHK)), double(v_BTHK), plan, row, cu_seqlens)
    return y.transpose(1, 2).reshape(B, T, H, K)


def _softmax(q: Tensor, k: Tensor, v: Tensor, plan: LayerPlan, row: Row, cu_seqlens: Tensor | None) -> Tensor:
    """softmax(scale · q kᵀ) v for (B, heads, positions, K)."""
    window = row.window_long if plan.long else row.window_short
    return attention(
        q,
        k,
        v,
        scale=row.scale,
        window=None if window is None else window + 1,  # attention counts the token itself
        cu_seqlens=cu_seqlens,
        backend=row.backend,
    )


def offset_keys(k_BHTK: Tensor, starts_BT: Tensor | None = None) -> Tensor:
    """Channels K/2 … of every key from the token before; the first token of a row, and of starts_BT, keep their own."""
    turned, still = k_BHTK.chunk(2, -1)
    before = torch.cat((still[:, :, :1], still[:, :, :-1]), 2)
    if starts_BT is not None:
        before = torch.where(starts_BT[:, None, :, None], still, before)
    return torch.cat((turned, before), -1)

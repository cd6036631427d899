"""Attention of a speedrun layer, plain or with pairs of heads.

Dimensions: B rows, T tokens, D width, H heads, K channels of a head, G gate channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_kernels import apply_rotary, attention, linear, rms_norm

from .composition import compose
from .config import GATE_CHANNELS
from .plan import LayerPlan
from .rotary import Tables

EPS = torch.finfo(torch.float32).eps
"""Of every norm. An embedding's mean square is 2.5e-5 at first: bfloat16's eps, 0.0078, would swallow it."""
LEAST_SQUARE = 1e-8
"""Of a value in `without_own_value`."""


class Row(NamedTuple):
    """What all layers of a forward pass share."""

    heads: int
    tables: Tables
    scale: float
    window_short: int | None
    """Tokens before itself that a token sees, None = all of its document."""
    window_long: int | None
    cu_seqlens: Tensor | None
    starts_BT: Tensor | None
    """First tokens of documents, where nothing may cross them."""
    backend: str


class AttentionWeights(NamedTuple):
    """A layer's slices of the banks, times their scalars."""

    qkv: Tensor
    """(3·H·K, D): rows of Q, K and V."""
    out: Tensor
    """(D, H·K), (out, in) as in every linear map."""


@dataclass(frozen=True)
class Extras:
    """What a layer's attention is given beside its input; None is left out."""

    value_BTD: Tensor | None = None
    """Added to the values."""
    gate_BTH: Tensor | None = None
    """Multiplies the heads' outputs."""
    xsa: Tensor | None = None
    """Strength per head before tanh, (H,) or (B, T, H)."""
    dynamic: tuple[Tensor, Tensor] | None = None
    """w1 and w2 of `composition.compose`, (B, T, H)."""


def norm(x: Tensor) -> Tensor:
    """x / rms(x) over the last dimension, without a weight, in float32 inside."""
    return rms_norm(x, eps=EPS)


def head_gate(x_BTC: Tensor, gate: Tensor) -> Tensor:
    """σ(gate · x) per head, (B, T, H), of 12 channels x, and gate (H, 12)."""
    return torch.sigmoid(linear(x_BTC[..., :GATE_CHANNELS], gate))


def attend(x_BTD: Tensor, weights: AttentionWeights, plan: LayerPlan, row: Row, extras: Extras) -> Tensor:
    """What attention adds to the stream, of the layer's normed input x.

    q, k = rope(n(Wq x)), rope(n(Wk x));   v = Wv x + value
    out = Wo (gate · softmax(scale · q kᵀ) v)     within the window and the document
    """
    B, T, _ = x_BTD.shape
    q_BTHK, k_BTHK, v_BTHK = linear(x_BTD, weights.qkv).view(B, T, 3, row.heads, -1).unbind(2)
    if extras.value_BTD is not None:
        v_BTHK = v_BTHK + extras.value_BTD.view_as(v_BTHK)
    if plan.attention == "paired":
        y_BTHK = _paired(norm(q_BTHK), norm(k_BTHK), v_BTHK, plan, row)
    else:
        y_BTHK = _plain(norm(q_BTHK), norm(k_BTHK), v_BTHK, plan, row, extras.dynamic)
    if extras.xsa is not None:
        y_BTHK = without_own_value(y_BTHK, v_BTHK, extras.xsa)
    if extras.gate_BTH is not None:
        y_BTHK = y_BTHK * extras.gate_BTH.unsqueeze(-1)
    return linear(y_BTHK.flatten(2), weights.out)


def _plain(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, plan: LayerPlan, row: Row, dynamic: tuple[Tensor, Tensor] | None
) -> Tensor:
    q_BHTK, k_BHTK = (apply_rotary(x.transpose(1, 2), *row.tables.plain) for x in (q_BTHK, k_BTHK))
    v_BHTK = v_BTHK.transpose(1, 2)
    if plan.key_offset:
        k_BHTK = offset_keys(k_BHTK, row.starts_BT)
    y_BHTK = _softmax(q_BHTK, k_BHTK, v_BHTK, plan, row, row.cu_seqlens)
    if dynamic is not None:
        y_BHTK = y_BHTK + compose(q_BHTK, k_BHTK, v_BHTK, *dynamic, scale=row.scale, cu_seqlens=row.cu_seqlens)
    return y_BHTK.transpose(1, 2)


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


def without_own_value(y_BTHK: Tensor, v_BTHK: Tensor, strength: Tensor) -> Tensor:
    """y − tanh(strength) · (y·v / v·v) v: less of the component along the token's own value, none at strength 0.

    XSA: arXiv:2603.09078. The value is not normalized, only its square divided by.
    """
    along_BTH1 = (y_BTHK * v_BTHK).sum(-1, keepdim=True) / v_BTHK.square().sum(-1, keepdim=True).clamp(min=LEAST_SQUARE)
    return y_BTHK - torch.tanh(strength).to(y_BTHK.dtype).unsqueeze(-1) * along_BTH1 * v_BTHK

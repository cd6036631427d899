"""Causal self-attention with grouped queries, rotary positions, QK-norm, sliding windows and a KV cache.

Dimensions: B batch, T new tokens, S visible tokens, D model width, H query heads, G key/value heads,
K head dimension.
"""

from typing import TYPE_CHECKING, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from gpt_kernels import apply_rotary, attention, rms_norm

from .linear import Linear
from .positions import Rotary

if TYPE_CHECKING:  # config.py imports the registries, not the reverse
    from .config import GPTConfig


class KVCache(Protocol):
    """What the model asks of a key/value cache (see gpt_core.generate for the implementations)."""

    def positions(self, T: int) -> Tensor:
        """Absolute positions of the next T tokens, (T,) or (B, T), int64."""
        ...

    def update(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append, and return all visible keys and values (B, G, S, K) with their mask.

        The mask is bool, True = attend, broadcastable to (B, 1, T, S), or None where plain causal attention
        (aligned at the end) is right.
        """
        ...

    def before(self, ids_BT: Tensor) -> Tensor:
        """The token before each of the new ones, (B, T), -1 where there is none; remembers them.

        For models that look back a token (`looks_back`), which call it in every forward pass.
        """
        ...

    def advance(self, T: int) -> None:
        """Called once per forward pass, after every layer has been updated."""
        ...


class SelfAttention(nn.Module):
    """One linear map makes q, k and v of all heads; k and v are shared by groups of H / G query heads."""

    def __init__(self, config: "GPTConfig", layer: int):
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.qkv = Linear(config.n_embd, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=config.has_qkv_bias)
        self.out = Linear(self.heads * self.head_dim, config.n_embd, bias=config.has_attention_out_bias)
        self.window = config.layer_window(layer)
        self.softcap = config.attention_softcap
        self.qk_norm, self.qk_norm_gain, self.eps = config.qk_norm, config.qk_norm_gain, config.norm_eps
        self.rope_style = config.rope_style
        self.backend = config.attention_backend
        self.attention_dropout = config.attention_dropout_p
        self.residual_dropout = config.residual_dropout_p

    def forward(
        self,
        x_BTD: Tensor,
        rotary: Rotary | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
        values_BGTK: Tensor | None = None,
    ) -> Tensor:
        """values_BGTK: what is added to the values."""
        B, T, _ = x_BTD.shape
        H, G, K = self.heads, self.kv_heads, self.head_dim
        heads_BNTK = self.qkv(x_BTD).view(B, T, H + 2 * G, K).transpose(1, 2)
        if rotary is None and not self.qk_norm:
            q_BHTK, k_BGTK, v_BGTK = heads_BNTK.split((H, G, G), 1)
        else:  # q and k are normed and rotated together
            qk_BNTK, v_BGTK = heads_BNTK.split((H + G, G), 1)
            if self.qk_norm:
                qk_BNTK = rms_norm(qk_BNTK, eps=self.eps)
                if self.qk_norm_gain != 1.0:
                    qk_BNTK = qk_BNTK * self.qk_norm_gain
            if rotary is not None:
                qk_BNTK = apply_rotary(qk_BNTK, *rotary, style=self.rope_style)
            q_BHTK, k_BGTK = qk_BNTK.split((H, G), 1)
        if values_BGTK is not None:
            v_BGTK = v_BGTK + values_BGTK
        mask = None
        if cache is not None:
            k_BGTK, v_BGTK, mask = cache.update(self.layer, k_BGTK, v_BGTK)
        out_BHTK = attention(
            q_BHTK,
            k_BGTK,
            v_BGTK,
            causal=mask is None,  # a cache's mask says everything
            window=self.window if mask is None else None,
            softcap=self.softcap,
            mask=mask,
            cu_seqlens=cu_seqlens,
            dropout=self.attention_dropout if self.training else 0.0,
            backend=self.backend,
        )
        out_BTD = self.out(out_BHTK.transpose(1, 2).reshape(B, T, H * K))
        if self.residual_dropout:
            out_BTD = F.dropout(out_BTD, self.residual_dropout, self.training)
        return out_BTD

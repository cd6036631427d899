"""Transformer blocks, by the place of their normalization.

Dimensions: B batch, T tokens, D model width.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .attention import KVCache, SelfAttention
from .ffn import FFNS
from .norms import NORMS
from .positions import Rotary

if TYPE_CHECKING:  # config.py imports the registries, not the reverse
    from .config import GPTConfig


class Block(nn.Module):
    """Attention, then a feed-forward network, each with a residual connection and its own norm."""

    def __init__(self, config: "GPTConfig", layer: int):
        super().__init__()
        norm = NORMS[config.normalization]
        self.attn_norm = norm(config.n_embd, config.norm_eps)
        self.attn = SelfAttention(config, layer)
        self.ffn_norm = norm(config.n_embd, config.norm_eps)
        self.ffn = FFNS[config.ffn_type](config)


class PreNormBlock(Block):
    """x + f(norm(x)): GPT-2, Llama and nearly everything since."""

    def forward(
        self,
        x_BTD: Tensor,
        rotary: Rotary | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        x_BTD = x_BTD + self.attn(self.attn_norm(x_BTD), rotary, cache, cu_seqlens)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))


class PostNormBlock(Block):
    """norm(x + f(x)): the original transformer (https://arxiv.org/abs/1706.03762)."""

    def forward(
        self,
        x_BTD: Tensor,
        rotary: Rotary | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        x_BTD = self.attn_norm(x_BTD + self.attn(x_BTD, rotary, cache, cu_seqlens))
        return self.ffn_norm(x_BTD + self.ffn(x_BTD))


BLOCKS: dict[str, type[Block]] = {"pre": PreNormBlock, "post": PostNormBlock}

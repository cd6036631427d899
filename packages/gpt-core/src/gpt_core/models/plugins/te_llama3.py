"""Llama 3 layers of NVIDIA Transformer Engine behind our forward.

Dimensions: B batch, T tokens, D model width, V vocabulary.
"""

from types import ModuleType

import torch
from torch import Tensor, nn

from ..attention import KVCache
from ..config import GPTConfig


def te_llama3(
    vocab_size: int,
    context_length: int,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    n_kv_head: int = 4,
    ffn_dim_multiplier: float = 1.0,
    multiple_of: int = 256,
    rope_theta: float = 10_000.0,
    norm_eps: float = 1e-5,
    embedding_init_std: float = 0.023,
) -> "TELlama3":
    """RMSNorm, SwiGLU and grouped queries in fused layers; needs a GPU and the transformer-engine package.

    The hidden width is ⌊multiplier · ⌊8/3 · n_embd⌋⌋ rounded up to multiple_of. ImportError where Transformer
    Engine is missing; `gpt(preset="llama3")` is the same architecture in plain PyTorch.
    """
    width = int(ffn_dim_multiplier * (8 * n_embd // 3))
    config = GPTConfig.from_preset(
        "llama",
        vocab_size=vocab_size,
        context_length=context_length,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_kv_head=n_kv_head,
        d_ff=-(-width // multiple_of) * multiple_of,
        rope_theta=rope_theta,
        rope_style="half",
        norm_eps=norm_eps,
        embedding_init_std=embedding_init_std,
    )
    return TELlama3(config, _transformer_engine())


class TELlama3(nn.Module):
    """Embedding, Transformer Engine layers, RMSNorm and an untied head."""

    supports_cache = False
    rotary: Tensor

    def __init__(self, config: GPTConfig, te: ModuleType):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.padded_vocab_size, config.n_embd)
        nn.init.normal_(self.embed.weight, std=config.embedding_init_std or config.init_std)
        self.blocks = nn.ModuleList(
            te.TransformerLayer(
                hidden_size=config.n_embd,
                ffn_hidden_size=config.ffn_dim,
                num_attention_heads=config.n_head,
                num_gqa_groups=config.kv_heads,
                layernorm_epsilon=config.norm_eps,
                hidden_dropout=0.0,
                attention_dropout=0.0,
                bias=False,
                normalization="RMSNorm",
                activation="swiglu",
                attn_input_format="bshd",
                self_attn_mask_type="causal",
                layer_number=layer + 1,
            )
            for layer in range(config.n_layer)
        )
        self.norm = te.RMSNorm(config.n_embd, eps=config.norm_eps)
        self.head = te.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        half_dim = torch.arange(0, config.head_dim, 2, dtype=torch.float32)
        angle = torch.outer(
            torch.arange(config.context_length, dtype=torch.float32),
            config.rope_theta ** (-half_dim / config.head_dim),
        )
        rotary = torch.cat((angle, angle), -1)[:, None, None, :]  # what TE calls rotary_pos_emb: angles
        self.register_buffer("rotary", rotary, persistent=False)

    def forward(self, ids_BT: Tensor, *, cache: KVCache | None = None, only_last: bool = False) -> Tensor:
        """Logits (B, T, V); only_last gives (B, 1, V)."""
        x_BTD = self.hidden(ids_BT, cache=cache)
        return self.logits(x_BTD[:, -1:] if only_last else x_BTD)

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """Vectors after the final norm, (B, T, D)."""
        if cache is not None:
            raise ValueError("Transformer Engine layers cannot use our KV cache; call with cache=None")
        x_BTD = self.embed(ids_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary_pos_emb=self.rotary[: ids_BT.shape[1]])
        return self.norm(x_BTD)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V)."""
        return self.head(x_BTD)[..., : self.config.vocab_size]


def _transformer_engine() -> ModuleType:
    try:
        import transformer_engine.pytorch as te  # ty: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise ImportError(
            "te_llama3 needs NVIDIA Transformer Engine and a CUDA GPU: pip install 'transformer-engine[pytorch]'. "
            "gpt(preset='llama3') is the same architecture in plain PyTorch"
        ) from error
    return te

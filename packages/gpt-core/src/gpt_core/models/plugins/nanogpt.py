"""nanoGPT's model: the modular GPT with that model's switches and initialization."""

from ..config import GPTConfig
from ..gpt import GPT


def nanogpt(
    vocab_size: int,
    context_length: int,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    tie_lm_head: bool = True,
    attn_dropout: float = 0.0,
    resid_dropout: float = 0.0,
    mlp_dropout: float = 0.0,
    embed_dropout: float = 0.0,
    mlp_bias: bool = False,
    attn_proj_bias: bool = False,
    attn_kv_bias: bool = False,
    layer_norm_bias: bool = False,
    init_seed: int | None = 42,
) -> GPT:
    """Pre-norm GPT-2 with tanh-GELU and learned positions; N(0, 0.02) weights from a generator of its own."""
    return GPT(
        GPTConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            normalization="layernorm" if layer_norm_bias else "layernorm_nobias",
            activation="gelu_tanh",
            qkv_bias=attn_kv_bias,
            attention_out_bias=attn_proj_bias,
            ffn_bias=mlp_bias,
            weight_tying=tie_lm_head,
            attention_dropout=attn_dropout,
            residual_dropout=resid_dropout,
            ffn_dropout=mlp_dropout,
            embedding_dropout=embed_dropout,
            init_seed=init_seed,
        )
    )

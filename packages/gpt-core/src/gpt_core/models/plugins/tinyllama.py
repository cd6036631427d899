"""TinyLlama (https://arxiv.org/abs/2401.02385): the modular GPT with that model's shape and initialization."""

from ..config import GPTConfig
from ..gpt import GPT


def tinyllama(
    vocab_size: int,
    context_length: int,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    n_query_groups: int = 1,
    intermediate_size: int = 2048,
    padded_vocab_multiple: int = 64,
    rope_theta: float = 10_000.0,
    norm_eps: float = 1e-5,
    init_seed: int | None = None,
) -> GPT:
    """RMSNorm, RoPE, SwiGLU, multi-query attention, untied padded vocabulary.

    Weights are N(0, sqrt(2 / (5 · n_embd))); those that write to the residual stream N(0, 1 / (sqrt(n_embd) ·
    n_layer)).
    """
    return GPT(
        GPTConfig.from_preset(
            "llama",
            vocab_size=vocab_size,
            context_length=context_length,
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            n_kv_head=n_query_groups,
            d_ff=intermediate_size,
            vocab_multiple_of=padded_vocab_multiple,
            rope_theta=rope_theta,
            rope_style="half",
            norm_eps=norm_eps,
            init_std=(2 / (5 * n_embd)) ** 0.5,
            residual_init_std=1 / (n_embd**0.5 * n_layer),
            init_seed=init_seed,
        )
    )

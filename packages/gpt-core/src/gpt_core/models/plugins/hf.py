"""Models of Hugging Face transformers, built from a config with random weights, behind our forward.

Dimensions: B batch, T tokens, D model width, V vocabulary.
"""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..attention import KVCache
from ..config import GPTConfig
from ..convert.hf_gpt2 import gpt2_config
from ..convert.hf_llama import llama_config
from ..convert.hub import require_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HFModel(nn.Module):
    """A transformers causal language model, kept as `hf`, called like our GPT."""

    supports_cache = False

    def __init__(self, hf: "PreTrainedModel", config: GPTConfig):
        super().__init__()
        self.hf = hf
        self.config = config

    def forward(self, ids_BT: Tensor, *, cache: KVCache | None = None, only_last: bool = False) -> Tensor:
        """Logits (B, T, V); only_last gives (B, 1, V)."""
        x_BTD = self.hidden(ids_BT, cache=cache)
        return self.logits(x_BTD[:, -1:] if only_last else x_BTD)

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """Vectors after the final norm, (B, T, D)."""
        if cache is not None:
            raise ValueError("a Hugging Face model cannot use our KV cache; call it with cache=None")
        return self.hf.base_model(ids_BT, use_cache=False).last_hidden_state

    def logits(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V)."""
        return self.hf.get_output_embeddings()(x_BTD)


def hf_gpt2(
    vocab_size: int,
    context_length: int,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    dropout: float = 0.1,
    norm_eps: float = 1e-5,
    tie_lm_head: bool = True,
) -> HFModel:
    """transformers.GPT2LMHeadModel with its own initialization."""
    transformers = require_transformers()
    hf_config = transformers.GPT2Config(
        vocab_size=vocab_size,
        n_positions=context_length,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        attn_pdrop=dropout,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        layer_norm_epsilon=norm_eps,
        tie_word_embeddings=tie_lm_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    return HFModel(transformers.GPT2LMHeadModel(hf_config), gpt2_config(hf_config))


def hf_llama(
    vocab_size: int,
    context_length: int,
    n_layer: int = 12,
    n_head: int = 12,
    n_embd: int = 768,
    use_gqa: bool = False,
    intermediate_size: int | None = None,
    rope_theta: float = 10_000.0,
    norm_eps: float = 1e-6,
    tie_lm_head: bool = False,
) -> HFModel:
    """transformers.LlamaForCausalLM with its own initialization.

    use_gqa shares one key/value head among all query heads. intermediate_size: None = 8/3 · n_embd rounded up
    to a multiple of 256.
    """
    transformers = require_transformers()
    hf_config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        max_position_embeddings=context_length,
        num_hidden_layers=n_layer,
        num_attention_heads=n_head,
        num_key_value_heads=1 if use_gqa else n_head,
        hidden_size=n_embd,
        intermediate_size=intermediate_size or -(-(8 * n_embd // 3) // 256) * 256,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        rms_norm_eps=norm_eps,
        tie_word_embeddings=tie_lm_head,
        bos_token_id=None,
        eos_token_id=None,
    )
    return HFModel(transformers.LlamaForCausalLM(hf_config), llama_config(hf_config))

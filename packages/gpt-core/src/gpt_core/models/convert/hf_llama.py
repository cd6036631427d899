"""Llama of Hugging Face transformers: weights in, and our GPT as such a model out.

Dimensions: H heads of a matrix, K head dimension, D model width.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..config import GPTConfig
from ..gpt import GPT
from .hub import hf_source, require_transformers
from .names import llama_name
from .weights import empty_gpt, fill

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel


def from_hf_llama(source: "PreTrainedModel | str | Path", *, dropout: float = 0.0) -> GPT:
    """Our GPT with the weights of a LlamaForCausalLM, on the CPU in float32, with rope_style "half".

    source: the model, a folder it was saved to, or a name on the Hub. Raises ImportError without
    transformers, ValueError if the source cannot be read or is no plain Llama.
    """
    hf = hf_source(source, "LlamaForCausalLM")
    model = empty_gpt(llama_config(hf.config, dropout=dropout))
    theirs = hf.state_dict()
    state: dict[str, Tensor] = {}
    for name in model.state_dict():
        their_name = llama_name(name)
        if ".attn.qkv." in name:
            parts = [theirs[their_name.replace(".qkv.", f".{letter}_proj.")] for letter in "qkv"]
            state[name] = torch.cat(parts)
        else:
            state[name] = theirs[their_name]
    fill(model, state, source="the Hugging Face model")
    return model


def llama_config(hf: "LlamaConfig", *, dropout: float | None = None) -> GPTConfig:
    """GPTConfig of a LlamaConfig; dropout None takes over its attention dropout."""
    rope = hf.rope_parameters or {}
    head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"our GPT has no equivalent of rope_type={rope['rope_type']!r}, only of 'default'")
    if head_dim * hf.num_attention_heads != hf.hidden_size or hf.hidden_act != "silu":
        raise ValueError(
            "our GPT has no equivalent of this Llama: expected head_dim = hidden_size / heads and silu, got "
            f"{head_dim}, {hf.hidden_size} / {hf.num_attention_heads} and {hf.hidden_act!r}"
        )
    return GPTConfig.from_preset(
        "llama",
        vocab_size=hf.vocab_size,
        context_length=hf.max_position_embeddings,
        n_layer=hf.num_hidden_layers,
        n_head=hf.num_attention_heads,
        n_kv_head=hf.num_key_value_heads,
        n_embd=hf.hidden_size,
        d_ff=hf.intermediate_size,
        norm_eps=hf.rms_norm_eps,
        rope_theta=rope.get("rope_theta", 10_000.0),
        rope_style="half",
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        ffn_bias=hf.mlp_bias,
        weight_tying=hf.tie_word_embeddings,
        dropout=dropout or 0.0,
        attention_dropout=hf.attention_dropout if dropout is None else None,
    )


def to_hf_llama(config: GPTConfig, state: dict[str, Tensor], **token_ids: int | None) -> "PreTrainedModel":
    """A LlamaForCausalLM with these weights; rows of q and k are reordered if our rotary is interleaved."""
    transformers = require_transformers()
    hf_config = transformers.LlamaConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.context_length,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        num_key_value_heads=config.kv_heads,
        hidden_size=config.n_embd,
        intermediate_size=config.ffn_dim,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        attention_bias=config.has_qkv_bias or config.has_attention_out_bias,
        mlp_bias=config.has_ffn_bias,
        attention_dropout=config.attention_dropout_p,
        tie_word_embeddings=config.weight_tying,
        **{"bos_token_id": None, "eos_token_id": None, **token_ids},
    )
    hf = transformers.LlamaForCausalLM(hf_config).to(state["embed.weight"].dtype)
    theirs = hf.state_dict()
    with torch.no_grad():
        for name, tensor in theirs.items():
            if name.endswith(".bias"):
                tensor.zero_()
        for name, tensor in state.items():
            their_name = llama_name(name)
            if ".attn.qkv." not in name:
                theirs[their_name].copy_(tensor)
                continue
            for letter, part in zip("qkv", _split_qkv(tensor, config), strict=True):
                theirs[their_name.replace(".qkv.", f".{letter}_proj.")].copy_(part)
    return hf


def _split_qkv(tensor: Tensor, config: GPTConfig) -> list[Tensor]:
    K = config.head_dim
    q, k, v = tensor.split((config.n_head * K, config.kv_heads * K, config.kv_heads * K))
    if config.rope_style == "interleaved":
        q, k = _to_half(q, K), _to_half(k, K)
    return [q, k, v]


def _to_half(rows: Tensor, K: int) -> Tensor:
    """Channels (2i, 2i+1) of each head moved to (i, i + K/2): the same rotation in the "half" style."""
    return rows.unflatten(0, (-1, K // 2, 2)).transpose(1, 2).flatten(0, 2)

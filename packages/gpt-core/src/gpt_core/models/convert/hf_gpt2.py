"""GPT-2 of Hugging Face transformers: weights in, and our GPT as such a model out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import GPTConfig
from ..gpt import GPT
from .hub import hf_source, require_transformers
from .names import gpt2_name
from .weights import empty_gpt, fill

if TYPE_CHECKING:
    from transformers import GPT2Config, PreTrainedModel

ACTIVATION_NAMES = {
    "gelu_tanh": "gelu_new",
    "gelu": "gelu",
    "silu": "silu",
    "relu": "relu",
    "leaky_relu": "leaky_relu",
    "relu2": "relu2",
}
_TRANSPOSED = ("attn.qkv.weight", "attn.out.weight", "ffn.up.weight", "ffn.down.weight")  # Conv1D keeps (in, out)


def from_hf_gpt2(source: "PreTrainedModel | str | Path", *, dropout: float = 0.0) -> GPT:
    """Our GPT with the weights of a GPT2LMHeadModel, on the CPU in float32.

    source: the model, a folder it was saved to, or a name on the Hub: gpt2, gpt2-medium, gpt2-large or
    gpt2-xl are the four OpenAI sizes. Dropout is a training choice and not taken over. Raises ImportError
    without transformers, ValueError if the source cannot be read or is no GPT-2.
    """
    hf = hf_source(source, "GPT2LMHeadModel")
    model = empty_gpt(gpt2_config(hf.config, dropout=dropout))
    theirs = hf.state_dict()
    state = {name: _as_linear(name, theirs[gpt2_name(name)]) for name in model.state_dict()}
    fill(model, state, source="the Hugging Face model")
    return model


def gpt2_config(hf: "GPT2Config", *, dropout: float | None = None) -> GPTConfig:
    """GPTConfig of a GPT2Config; dropout None takes over its three dropout rates."""
    activations = {theirs: ours for ours, theirs in ACTIVATION_NAMES.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    unsupported = {
        "scale_attn_weights": not hf.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": hf.scale_attn_by_inverse_layer_idx,
        "add_cross_attention": hf.add_cross_attention,
        "activation_function": hf.activation_function not in activations,
    }
    for field, bad in unsupported.items():
        if bad:
            raise ValueError(f"our GPT has no equivalent of GPT-2 with {field}={getattr(hf, field)!r}")
    fields: dict[str, Any] = {"dropout": dropout}
    if dropout is None:
        fields = {
            "attention_dropout": hf.attn_pdrop,
            "residual_dropout": hf.resid_pdrop,
            "ffn_dropout": hf.resid_pdrop,
            "embedding_dropout": hf.embd_pdrop,
        }
    return GPTConfig.from_preset(
        "gpt2_pre",
        vocab_size=hf.vocab_size,
        context_length=hf.n_positions,
        n_layer=hf.n_layer,
        n_head=hf.n_head,
        n_embd=hf.n_embd,
        d_ff=hf.n_inner,
        normalization="layernorm",
        norm_eps=hf.layer_norm_epsilon,
        activation=activations[hf.activation_function],
        bias=True,
        weight_tying=hf.tie_word_embeddings,
        **fields,
    )


def to_hf_gpt2(config: GPTConfig, state: dict[str, Tensor], **token_ids: int | None) -> "PreTrainedModel":
    """A GPT2LMHeadModel with these weights. Biases our model lacks are zeros, which is the same function."""
    transformers = require_transformers()
    hf_config = transformers.GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.n_embd,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_inner=config.ffn_dim,
        activation_function=ACTIVATION_NAMES[config.activation],
        layer_norm_epsilon=config.norm_eps,
        attn_pdrop=config.attention_dropout_p,
        resid_pdrop=config.residual_dropout_p,
        embd_pdrop=config.embedding_dropout_p,
        tie_word_embeddings=config.weight_tying,
        **{"bos_token_id": None, "eos_token_id": None, **token_ids},
    )
    hf = transformers.GPT2LMHeadModel(hf_config).to(state["embed.weight"].dtype)
    theirs = hf.state_dict()
    with torch.no_grad():
        for name, tensor in theirs.items():
            if name.endswith(".bias"):
                tensor.zero_()
        for name, tensor in state.items():
            theirs[gpt2_name(name)].copy_(_as_linear(name, tensor))
    return hf


def _as_linear(name: str, tensor: Tensor) -> Tensor:
    """Conv1D's (in, out) matrix as Linear's (out, in), or back: the same transposition."""
    return tensor.t() if name.endswith(_TRANSPOSED) else tensor

"""Presets: component choices of known architectures, without sizes. Explicit fields always override them."""

from typing import Any

_LLAMA: dict[str, Any] = {
    "normalization": "rmsnorm",
    "position_encoding": "rope",
    "ffn_type": "swiglu",
    "norm_position": "pre",
    "weight_tying": False,
    "activation": "silu",
}
_GPT2_PRE: dict[str, Any] = {
    "normalization": "layernorm_nobias",
    "position_encoding": "learned_absolute",
    "ffn_type": "standard",
    "norm_position": "pre",
    "weight_tying": True,
    "activation": "gelu",
}
_DEPTH: dict[str, Any] = {
    "normalization": "rmsnorm_weightless",
    "position_encoding": "rope",
    "ffn_type": "standard",
    "norm_position": "pre",
    "weight_tying": False,
    "activation": "relu2",
    "qk_norm": True,
    "embedding_norm": True,
    "vocab_multiple_of": 64,
    "logit_softcap": 15.0,
    "residual_init_std": 0.0,
    "embedding_init_std": 0.8,
    "head_init_std": 0.001,
}

PRESETS: dict[str, dict[str, Any]] = {
    "gpt2_pre": _GPT2_PRE,
    "gpt2": {**_GPT2_PRE, "norm_position": "post"},
    "llama": _LLAMA,
    "llama3": {**_LLAMA, "rope_theta": 500_000.0, "n_kv_head": 8, "ffn_expansion_ratio": 3.5},
    "team": {**_LLAMA, "attention_backend": "sdpa"},
    "hybrid": {**_GPT2_PRE, "position_encoding": "rope"},
    "depth": _DEPTH,
    "custom": {},
}
"""depth is nanochat's architecture without its extras, which `gpt_core.models.nanochat` has. gpt2_pre is what GPT-2 and
nanoGPT really are; gpt2 keeps the post-norm label of an earlier system. custom leaves every field at its GPTConfig
default."""


def preset(name: str) -> dict[str, Any]:
    """A copy of the fields a preset sets. ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return dict(PRESETS[name])

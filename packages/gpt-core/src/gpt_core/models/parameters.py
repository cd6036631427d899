"""Exact parameter counts: by formula from a config, and by group from a model."""

from dataclasses import dataclass

from torch import nn

from .config import GPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Number of parameters by group; biases belong to the group of their weight."""

    embed: int
    position: int
    attention: int
    ffn: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        return self.embed + self.position + self.attention + self.ffn + self.norm + self.head

    @property
    def non_position(self) -> int:
        """All but the position table: what nanoGPT prints as the number of parameters."""
        return self.total - self.position

    @property
    def non_embedding(self) -> int:
        """The blocks and the final norm."""
        return self.attention + self.ffn + self.norm


def count_parameters(config: GPTConfig) -> ParameterCount:
    """Parameters of GPT(config), without building it.

    Per layer: attention D·(H + 2·G)·K + H·K·D, feed-forward f·D·F with f = 2 (standard) or 3 (swiglu), and
    n·D per norm with n = 1, or 2 where the norm has a bias. Only for the components that ship here:
    ValueError for others.
    """
    L, D, F = config.n_layer, config.n_embd, config.ffn_dim
    norms = {"layernorm": 2, "layernorm_nobias": 1, "rmsnorm": 1, "rmsnorm_weightless": 0}
    norm_rows = _lookup(norms, config.normalization)
    into_ffn = _lookup({"standard": 1, "swiglu": 2}, config.ffn_type)  # matrices D -> F, beside the one back
    positions = {"learned_absolute": config.context_length, "rope": 0, "none": 0}
    qkv_dim = (config.n_head + 2 * config.kv_heads) * config.head_dim
    attention = qkv_dim * D + D * D
    attention += qkv_dim * config.has_qkv_bias + D * config.has_attention_out_bias
    ffn = (into_ffn + 1) * D * F + (into_ffn * F + D) * config.has_ffn_bias
    table = config.padded_vocab_size * D
    return ParameterCount(
        embed=table,
        position=_lookup(positions, config.position_encoding) * D,
        attention=L * attention,
        ffn=L * ffn,
        norm=(2 * L + 1) * norm_rows * D,
        head=0 if config.weight_tying else table,
    )


def count_model_parameters(model: nn.Module) -> ParameterCount:
    """Parameters of a built GPT by the same groups, from their names; prefixes of wrappers do not matter."""
    groups = dict.fromkeys(("embed", "position", "attention", "ffn", "norm", "head"), 0)
    for name, parameter in model.named_parameters():
        groups[parameter_group(name)] += parameter.numel()
    return ParameterCount(**groups)


def parameter_group(name: str) -> str:
    """Group of a parameter of GPT: embed, position, attention, ffn, norm or head."""
    words = name.split(".")
    for group, word in (("attention", "attn"), ("ffn", "ffn")):
        if word in words:
            return group
    for group in ("embed", "position", "head"):
        if group in words:
            return group
    if any(word == "norm" or word.endswith("_norm") for word in words):
        return "norm"
    raise ValueError(f"{name!r} is not the name of a GPT parameter")


def _lookup(options: dict[str, int], name: str) -> int:
    if name not in options:
        raise ValueError(f"no parameter formula for {name!r}, only for {', '.join(options)}; build the model")
    return options[name]

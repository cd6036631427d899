"""GPTConfig: every choice that fixes the architecture of a GPT."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gpt_kernels import ATTENTION_BACKENDS

from .block import BLOCKS
from .ffn import ACTIVATIONS, FFNS
from .fields import check_counts, check_heads, from_fields
from .norms import NORMS
from .positions import POSITIONS, ROPE_STYLES
from .presets import preset as preset_fields

COMPONENTS: dict[str, Mapping[str, Any]] = {
    "normalization": NORMS,
    "activation": ACTIVATIONS,
    "position_encoding": POSITIONS,
    "rope_style": ROPE_STYLES,
    "attention_backend": dict.fromkeys(ATTENTION_BACKENDS),
    "norm_position": BLOCKS,
    "ffn_type": FFNS,
}
"""Options of each component field. Adding a class to a registry makes its name valid here."""


@dataclass(frozen=True)
class GPTConfig:
    """Architecture of a GPT. The defaults are GPT-2 small as nanoGPT trains it (preset `gpt2_pre`)."""

    vocab_size: int
    context_length: int
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    n_kv_head: int | None = None
    """Key/value heads; None = n_head. Fewer gives grouped-query attention, 1 multi-query attention."""
    d_ff: int | None = None
    """Hidden width of the feed-forward network; None = from ffn_expansion_ratio."""
    ffn_expansion_ratio: float | None = None
    """Hidden width over n_embd; None = 4 for standard, 8/3 for swiglu."""
    ffn_multiple_of: int = 1
    """Round the hidden width up to a multiple of this (not applied to an explicit d_ff)."""
    vocab_multiple_of: int = 1
    """Round the rows of the embedding and the head up to a multiple of this; logits keep vocab_size columns."""

    normalization: str = "layernorm_nobias"
    norm_position: str = "pre"
    norm_eps: float = 1e-5
    activation: str = "gelu"
    """Of the standard feed-forward network; swiglu always uses silu."""
    ffn_type: str = "standard"
    position_encoding: str = "learned_absolute"
    rope_theta: float = 10_000.0
    rope_style: str = "interleaved"
    attention_backend: str = "auto"
    qk_norm: bool = False
    """Weightless RMS norm of every query and key head."""
    qk_norm_gain: float = 1.0
    """Factor of the normed queries and keys: scores are sharper by its square. Needs qk_norm."""
    window: int | None = None
    """Keys each token sees in sliding-window layers, itself included."""
    window_pattern: str = "L"
    """One letter per layer, repeated: L = full attention, S = sliding window. SSSL = three short, one long."""
    attention_softcap: float = 0.0
    """Attention scores become cap · tanh(scores / cap); 0 = off."""
    logit_softcap: float = 0.0
    """The same for the logits; 0 = off."""

    embedding_norm: bool = False
    """Weightless RMS norm of the token vectors, positions added, before the first block."""
    bias: bool = False
    """Bias of every linear map but the head (norms have one by their type)."""
    qkv_bias: bool | None = None
    attention_out_bias: bool | None = None
    ffn_bias: bool | None = None
    """Overrides of bias for one kind of linear map; None = bias."""
    weight_tying: bool = True
    """The head is the embedding matrix."""

    dropout: float = 0.0
    attention_dropout: float | None = None
    residual_dropout: float | None = None
    ffn_dropout: float | None = None
    embedding_dropout: float | None = None
    """Overrides of dropout for one place; None = dropout."""

    init_std: float = 0.02
    """Standard deviation of every linear and embedding weight at initialization."""
    residual_init_std: float | None = None
    """The same for the two maps that write to the residual stream; None = init_std / sqrt(2 · n_layer)."""
    embedding_init_std: float | None = None
    head_init_std: float | None = None
    """The same for the embeddings and for an untied head; None = init_std."""
    init_seed: int | None = None
    """Seed of a generator used only for initialization; None = torch's global generator."""

    @classmethod
    def from_preset(cls, preset: str, **fields: Any) -> Self:
        """Fields of a preset (see presets.PRESETS), then the explicit ones, which override them."""
        return cls.from_dict({**preset_fields(preset), **fields})

    def __post_init__(self) -> None:
        self._check_components()
        self._check_sizes()
        self._check_attention()

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the feed-forward network: d_ff, else ratio · n_embd rounded to ffn_multiple_of."""
        if self.d_ff is not None:
            return self.d_ff
        if self.ffn_expansion_ratio is not None:
            width = int(self.ffn_expansion_ratio * self.n_embd)
        elif self.ffn_type == "swiglu":
            width = 8 * self.n_embd // 3
        else:
            width = 4 * self.n_embd
        return _round_up(width, self.ffn_multiple_of)

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and of the head."""
        return _round_up(self.vocab_size, self.vocab_multiple_of)

    @property
    def has_qkv_bias(self) -> bool:
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def has_attention_out_bias(self) -> bool:
        return self.bias if self.attention_out_bias is None else self.attention_out_bias

    @property
    def has_ffn_bias(self) -> bool:
        return self.bias if self.ffn_bias is None else self.ffn_bias

    @property
    def attention_dropout_p(self) -> float:
        return self.dropout if self.attention_dropout is None else self.attention_dropout

    @property
    def residual_dropout_p(self) -> float:
        return self.dropout if self.residual_dropout is None else self.residual_dropout

    @property
    def ffn_dropout_p(self) -> float:
        return self.dropout if self.ffn_dropout is None else self.ffn_dropout

    @property
    def embedding_dropout_p(self) -> float:
        return self.dropout if self.embedding_dropout is None else self.embedding_dropout

    def layer_window(self, layer: int) -> int | None:
        """Keys a token of this layer sees, itself included; None = all before it."""
        letter = self.window_pattern[layer % len(self.window_pattern)]
        return self.window if letter == "S" else None

    @property
    def name(self) -> str:
        """Short description, e.g. 12L-12H-768D-RoPE-RMS-SwiGLU-PreNorm."""
        position = {"rope": "RoPE", "learned_absolute": "AbsPos", "none": "NoPos"}
        norm = {"rmsnorm": "RMS", "layernorm": "LN", "layernorm_nobias": "LN-NB"}
        ffn = "SwiGLU" if self.ffn_type == "swiglu" else self.activation.upper()
        parts = [f"{self.n_layer}L-{self.n_head}H-{self.n_embd}D"]
        if self.kv_heads != self.n_head:
            parts.append(f"GQA{self.kv_heads}")
        parts += [
            position.get(self.position_encoding, self.position_encoding),
            norm.get(self.normalization, self.normalization),
            ffn if self.ffn_type in ("standard", "swiglu") else self.ffn_type,
            "PreNorm" if self.norm_position == "pre" else "PostNorm",
        ]
        return "-".join(parts)

    def notes(self) -> list[str]:
        """Remarks on unusual mixes of components, one line each, for the start of a run."""
        lines = []
        if self.position_encoding == "learned_absolute" and self.ffn_type == "swiglu":
            lines.append("learned positions with SwiGLU: an unusual mix (SwiGLU models mostly use RoPE)")
        if self.normalization.startswith("layernorm") and self.ffn_type == "swiglu":
            lines.append("LayerNorm with SwiGLU: an unusual mix (SwiGLU models mostly use RMSNorm)")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-able; `GPTConfig(**config.to_dict()) == config`."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the fields as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. ValueError for a field this version does not know."""
        return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. ValueError for an unknown field."""
        return from_fields(cls, fields, "model")

    def _check_components(self) -> None:
        for field, options in COMPONENTS.items():
            value = getattr(self, field)
            if value not in options:
                raise ValueError(f"unknown {field} {value!r}; choose one of {', '.join(options)}")

    def _check_sizes(self) -> None:
        sizes = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "ffn_multiple_of")
        check_counts(self, (*sizes, "n_kv_head", "d_ff", "vocab_multiple_of", "window", "ffn_dim"))
        for field in ("norm_eps", "rope_theta"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} must be positive, got {getattr(self, field)}")
        for field in ("init_std", "residual_init_std", "embedding_init_std", "head_init_std"):
            value = getattr(self, field)
            if value is not None and not value >= 0:
                raise ValueError(f"{field} must not be negative, got {value}")
        for field in ("dropout", "attention_dropout", "residual_dropout", "ffn_dropout", "embedding_dropout"):
            value = getattr(self, field)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{field} must be in [0, 1), got {value}")
        for field in ("attention_softcap", "logit_softcap"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be 0 (off) or positive, got {getattr(self, field)}")

    def _check_attention(self) -> None:
        check_heads(self)
        if self.n_head % self.kv_heads:
            raise ValueError(f"n_head must be a multiple of n_kv_head, got {self.n_head} and {self.kv_heads}")
        if self.position_encoding == "rope" and self.head_dim % 2:
            raise ValueError(f"rope needs an even head dimension, got n_embd / n_head = {self.head_dim}")
        if not self.qk_norm_gain > 0 or (self.qk_norm_gain != 1 and not self.qk_norm):
            raise ValueError(f"qk_norm_gain must be positive, and 1 without qk_norm, got {self.qk_norm_gain}")
        if not self.window_pattern or set(self.window_pattern) - set("SL"):
            raise ValueError(f"window_pattern is a string of S and L, got {self.window_pattern!r}")
        if ("S" in self.window_pattern) != (self.window is not None):
            raise ValueError(
                "window and an S in window_pattern come together, "
                f"got window={self.window}, window_pattern={self.window_pattern!r}"
            )


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple

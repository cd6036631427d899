"""SpeedrunConfig: the sizes of a speedrun model, and one switch per trick."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from gpt_core.models.fields import check_counts, check_heads, from_fields
from gpt_kernels import SigmoidCap

from .plan import LayerPlan, Places, plan_layers

GATE_CHANNELS = 12
"""Channels of its input that a gate reads."""
BIGRAM_ROWS_PER_TOKEN = 5
VOCABULARY_MULTIPLE = 128


@dataclass(frozen=True)
class SpeedrunConfig:
    """Architecture of a speedrun model. The defaults are record 68 of modded-nanogpt with GPT-2's vocabulary.

    Switches that are on by default are tricks of record 68 or before; those of later records name theirs.
    """

    vocab_size: int
    context_length: int = 2048
    """Longest document in tokens; what generation crops to. Rows of packed documents may be longer."""
    n_layer: int = 11
    n_head: int = 6
    n_embd: int = 768
    mlp_ratio: int = 4
    """Hidden width of the MLP over n_embd."""
    bank_multiple: int = 8
    """Banks hold a multiple of so many matrices, for as many ranks at most; what no layer uses is padding."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights and activations; scalars and lambdas are float32 always. Records are made in bfloat16."""
    init_seed: int | None = None
    """Seed of a generator used only for initialization; None = torch's global generator."""
    attention_backend: str = "auto"

    paired_heads: bool = True
    """Some layers attend over two heads as one sequence of twice the length, with twice as many positions."""
    attention_free_layer: bool = True
    """One layer in the middle has no attention."""
    windows: bool = True
    """Attention sees `window_short` tokens back, in two layers `window_long`; off = the whole document."""
    window_short: int = 128
    window_long: int = 384
    """Tokens before itself that a token sees at first; `Speedrun.set_windows` changes them."""
    yarn: bool = True
    """When the long window grows, slow rotary frequencies get slower and scores sharper. Needs windows."""
    half_rotary: bool = True
    """Rotary positions turn only the first half of a head's channels."""
    key_offset: bool = True
    """In layers with a long window, the still channels of a key are those of the token before. Needs half_rotary."""
    attention_gates: bool = True
    """Every head's output is scaled by a sigmoid of the block's input."""
    value_embeddings: bool = True
    """The first two and the last three layers add an embedding of the token itself to the values of attention."""
    value_gates: bool = True
    """Value embeddings are scaled per head by twice a sigmoid of the block's input. Needs value_embeddings."""
    bigram_embeddings: bool = True
    """An embedding of a token and the one before it, hashed, is added to the residual stream before every layer."""
    bigram_rows: int | None = None
    """Rows of its table, the last one for tokens without a predecessor; None = 5 per token of the vocabulary."""
    smear: bool = True
    """A little of the previous token's embedding is mixed into each token's."""
    skip: bool = True
    """The layer without attention adds what another layer made earlier, gated. Needs attention_free_layer."""
    x0_lambdas: bool = True
    """Every layer adds a multiple of the first embedding to the residual stream."""
    backout: bool = True
    """What the stream was after two thirds of the layers is partly taken back before the head."""
    softcap: bool = True
    """Logits are bounded: 23 sigmoid((l + 5) / 7.5)."""
    isolate_documents: bool = False
    """Smear, bigrams and key offset stop at the first token of a document; upstream lets them cross."""

    value_std: float = 0.0
    """Value embeddings are normal with this standard deviation at first. Record 70: 0.01."""
    value_shift: bool = False
    """The second and third layer have value embeddings, not the first and second. Record 70."""
    value_gate_token: bool = False
    """Value gates read 6 channels of the block's input and 6 of the value embedding. Record 70."""
    sublayer_lambdas: bool = False
    """Attention and MLP each have a factor for the stream and one for what they add; the first embedding and the bigram
    are added with what attention adds. Records 73 and 74."""
    parallel_lanes: bool = False
    """The last third of the layers has two streams: attention reads one, the MLP the other, both add to both. Records
    73 to 76. Needs sublayer_lambdas."""
    drop_post_attention: bool = False
    """What attention adds has no factor in layers with one stream. Records 74 to 76. Needs parallel_lanes."""
    cached_attention: bool = False
    """In the last third of the layers attention reads the stream as it was before them. Record 77. Needs
    sublayer_lambdas, instead of parallel_lanes."""
    pair_banks: bool = False
    """Q and K of two heads are one matrix of a bank of their own, for Muon to orthogonalize. Record 80."""
    mudd: bool = False
    """Factors and sources of the last layer, and of the head's input, are worked out for every token by two small
    networks; they take over backout. Record 81. Needs cached_attention, value_embeddings and skip."""
    xsa: bool = False
    """Attention's output loses part of its component along the token's own value. Record 82."""
    bigram_signs: bool = False
    """Bigram rows are multiplied by one of 8192 fixed vectors of signs, so that bigrams share a row. Record 83."""
    bigram_dim: int | None = None
    """Channels of the stream that bigrams are added to; None = all. Record 83: 192, with 15 rows per token."""
    mudd_gates: bool = False
    """Two more small networks make the gates of attention, xsa, skip, first embedding and bigram for every token; only
    layers with a long window have attention gates. Record 85. Needs mudd, xsa and what it makes gates of."""
    dynamic_heads: bool = False
    """The last layer mixes the attention patterns of its heads, near the token, with weights for every token. Record
    85. Needs mudd_gates."""
    fp8_mlp: Literal["off", "up", "both"] = "off"
    """The MLP's forward products in float8, where the GPU has it. Record 84: up; record 89: both."""

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_prerequisites()
        assert self.layers  # raises for a model that is too shallow

    @property
    def head_dim(self) -> int:
        """Channels per head."""
        return self.n_embd // self.n_head

    @property
    def ffn_dim(self) -> int:
        """Hidden width of the MLP."""
        return self.mlp_ratio * self.n_embd

    @property
    def padded_vocab_size(self) -> int:
        """V: rows of the embeddings and columns of the head."""
        return round_up(self.vocab_size, VOCABULARY_MULTIPLE)

    @property
    def bigram_shape(self) -> tuple[int, int]:
        """Rows and channels of the bigram table."""
        rows = BIGRAM_ROWS_PER_TOKEN * self.padded_vocab_size if self.bigram_rows is None else self.bigram_rows
        return rows, self.n_embd if self.bigram_dim is None else self.bigram_dim

    @property
    def logit_softcap(self) -> SigmoidCap | float:
        """What `gpt_core.training.ModelWithLoss` hands to a loss that makes its own logits."""
        return SigmoidCap() if self.softcap else 0.0

    @cached_property
    def places(self) -> Places:
        """Where the tricks are that the number of a layer decides."""
        return Places.of_depth(self.n_layer)

    @cached_property
    def layers(self) -> tuple[LayerPlan, ...]:
        """What each layer is made of."""
        return plan_layers(self.n_layer, self.places, self)

    def layer_window(self, layer: int) -> int | None:
        """Keys that a token of this layer sees at first, itself included; None = all of its document."""
        if not self.windows:
            return None
        return 1 + (self.window_long if self.layers[layer].long else self.window_short)

    def layer_flops(self, layer: int, convention: Literal["palm", "causal"] = "palm") -> dict[str, int]:
        """What `gpt_core.monitor.flops` asks of a layer: the products of its banks, and of attention, forward, for
        `context_length` tokens. Gates and the small networks of `mudd` are left out, as norms and positions are."""
        S, D, plan = self.context_length, self.n_embd, self.layers[layer]
        pair = 2 if plan.attention == "paired" else 1  # twice the positions, half the heads
        seen = min(pair * S, self.layer_window(layer) or pair * S)
        scores = 4 * S * D * seen - (2 * D // pair * seen * seen if convention == "causal" else 0)
        attention = plan.attention is not None
        return {
            "projections": 8 * S * D * D * attention,
            "scores": scores * attention,
            "ffn": 4 * S * D * self.ffn_dim,
            "rope": 0,
            "norm": 0,
        }

    @property
    def attention_layers(self) -> int:
        """Layers with attention."""
        return sum(layer.attention is not None for layer in self.layers)

    @property
    def value_layers(self) -> int:
        """Layers with a value embedding."""
        return sum(layer.value is not None for layer in self.layers)

    @property
    def name(self) -> str:
        """Short description, e.g. speedrun-11L-6H-768D."""
        return f"speedrun-{self.n_layer}L-{self.n_head}H-{self.n_embd}D"

    def to_dict(self) -> dict[str, Any]:
        """Every field, JSON-able; `SpeedrunConfig(**config.to_dict()) == config`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. ValueError for an unknown field."""
        return from_fields(cls, fields, "speedrun")

    def _check_sizes(self) -> None:
        counts = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "mlp_ratio", "bank_multiple")
        check_counts(self, counts)
        check_heads(self)
        if self.head_dim % 4 or self.head_dim < 8:
            raise ValueError(f"heads need a multiple of 4 channels, at least 8, got n_embd / n_head = {self.head_dim}")
        if self.n_embd < GATE_CHANNELS:
            raise ValueError(f"gates read {GATE_CHANNELS} channels, n_embd is {self.n_embd}")
        if not 1 <= self.window_short <= self.window_long:
            raise ValueError(f"1 <= window_short <= window_long, got {self.window_short} and {self.window_long}")
        if self.bigram_rows is not None and self.bigram_rows < 2:
            raise ValueError(f"bigram_rows must be at least 2, got {self.bigram_rows}")
        if self.bigram_dim is not None and not 1 <= self.bigram_dim <= self.n_embd:
            raise ValueError(f"bigram_dim must be from 1 to n_embd = {self.n_embd}, got {self.bigram_dim}")
        if not self.value_std >= 0:
            raise ValueError(f"value_std must not be negative, got {self.value_std}")
        for field, options in (("dtype", ("float32", "bfloat16")), ("fp8_mlp", ("off", "up", "both"))):
            if getattr(self, field) not in options:
                raise ValueError(f"{field} must be one of {', '.join(options)}, got {getattr(self, field)!r}")

    def _check_prerequisites(self) -> None:
        for switch, needed in PREREQUISITES.items():
            missing = [name for name in needed if not getattr(self, name)]
            if getattr(self, switch) and missing:
                raise ValueError(f"{switch} needs {' and '.join(missing)}: switch {switch} off, or {missing[0]} on")
        if self.cached_attention and self.parallel_lanes:
            raise ValueError("cached_attention replaces parallel_lanes: switch one of them off")
        for switch in ("paired_heads", "pair_banks", "mudd"):
            if getattr(self, switch) and self.n_head % 2:
                raise ValueError(f"{switch} needs an even number of heads, got n_head={self.n_head}")


PREREQUISITES = {
    "yarn": ("windows",),
    "key_offset": ("half_rotary",),
    "value_gates": ("value_embeddings",),
    "value_shift": ("value_embeddings",),
    "value_std": ("value_embeddings",),
    "value_gate_token": ("value_gates",),
    "skip": ("attention_free_layer",),
    "parallel_lanes": ("sublayer_lambdas",),
    "drop_post_attention": ("parallel_lanes",),
    "cached_attention": ("sublayer_lambdas",),
    "mudd": ("cached_attention", "value_embeddings", "skip"),
    "bigram_signs": ("bigram_embeddings",),
    "bigram_dim": ("bigram_embeddings",),
    "bigram_rows": ("bigram_embeddings",),
    "mudd_gates": ("mudd", "xsa", "attention_gates", "bigram_embeddings", "x0_lambdas"),
    "dynamic_heads": ("mudd_gates",),
}
"""Switches that mean something only with others."""


def round_up(value: int, multiple: int, unit: int = 1) -> int:
    """The least n of at least `value / unit` for which n · unit is a multiple of `multiple`."""
    n = -(-value // unit)
    while n * unit % multiple:
        n += 1
    return n

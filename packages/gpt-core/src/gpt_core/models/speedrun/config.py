"""SpeedrunConfig: the sizes of a speedrun model, and one switch per trick."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from gpt_kernels import SigmoidCap

from .plan import LayerPlan, Places, plan_layers

GATE_CHANNELS = 12
"""Channels of its input that a gate reads."""
BIGRAM_ROWS_PER_TOKEN = 5
VOCABULARY_MULTIPLE = 128


@dataclass(frozen=True)
class SpeedrunConfig:
    """Architecture of a speedrun model. The defaults are record 68 of modded-nanogpt with GPT-2's vocabulary."""

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
    """Of weights and activations; scalars and x0_lambdas are float32 always. Records are made in bfloat16."""
    init_seed: int | None = None
    """Seed of a generator used only for initialization; None = torch's global generator."""

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

    attention_backend: str = "auto"

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
    def bigram_table(self) -> int:
        """Rows of the bigram table."""
        return BIGRAM_ROWS_PER_TOKEN * self.padded_vocab_size if self.bigram_rows is None else self.bigram_rows

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

    @property
    def attention_layers(self) -> int:
        """Layers with attention."""
        return sum(layer.attention is not None for layer in self.layers)

    @property
    def value_layers(self) -> int:
        """Layers with a value embedding."""
        return sum(layer.value is not None for layer in self.layers)

    @property
    def attention_slots(self) -> int:
        """Rows of the attention bank, padding included; a slot holds Q, K, V and O."""
        return round_up(4 * self.attention_layers, self.bank_multiple, 4)

    @property
    def mlp_slots(self) -> int:
        """Rows of the MLP bank, padding included; a slot holds fc and proj."""
        return round_up(2 * self.n_layer, self.bank_multiple, 2)

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
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
            raise ValueError(f"unknown speedrun fields {', '.join(unknown)}; {hint}")
        return cls(**fields)

    def _check_sizes(self) -> None:
        for field in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "mlp_ratio", "bank_multiple"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd must be a multiple of n_head, got {self.n_embd} and {self.n_head}")
        if self.head_dim % 4 or self.head_dim < 8:
            raise ValueError(f"heads need a multiple of 4 channels, at least 8, got n_embd / n_head = {self.head_dim}")
        if self.n_embd < GATE_CHANNELS:
            raise ValueError(f"gates read {GATE_CHANNELS} channels, n_embd is {self.n_embd}")
        if not 1 <= self.window_short <= self.window_long:
            raise ValueError(f"1 <= window_short <= window_long, got {self.window_short} and {self.window_long}")
        if self.bigram_rows is not None and self.bigram_rows < 2:
            raise ValueError(f"bigram_rows must be at least 2, got {self.bigram_rows}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")

    def _check_prerequisites(self) -> None:
        for switch, needed in PREREQUISITES.items():
            if getattr(self, switch) and not getattr(self, needed):
                raise ValueError(f"{switch} needs {needed}: switch {switch} off too, or {needed} on")
        if self.paired_heads and self.n_head % 2:
            raise ValueError(f"paired_heads needs an even number of heads, got n_head={self.n_head}")


PREREQUISITES = {
    "yarn": "windows",
    "key_offset": "half_rotary",
    "value_gates": "value_embeddings",
    "skip": "attention_free_layer",
}
"""Switches that mean something only with another one."""


def round_up(value: int, multiple: int, unit: int = 1) -> int:
    """The least n of at least `value / unit` for which n · unit is a multiple of `multiple`."""
    n = -(-value // unit)
    while n * unit % multiple:
        n += 1
    return n

"""NanochatConfig: GPTConfig, and one switch for each extra."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import GPTConfig

GATE_CHANNELS = 12
"""Channels of the block's input that a value gate reads."""
SMEAR_CHANNELS = 24
"""Channels of the token's vector that the smear gate reads."""


@dataclass(frozen=True)
class NanochatConfig(GPTConfig):
    """Architecture of a `Nanochat`. With all switches off it is a GPT."""

    value_embeddings: bool = True
    """Every second layer, the last included, adds an embedding of the token itself to the values of attention, times
    3·sigmoid of the block's input for each head (after arXiv:2410.17897)."""
    resid_lambdas: bool = True
    """Every layer scales the residual stream that it is given."""
    x0_lambdas: bool = True
    """Every layer is given a multiple of the first block's input besides."""
    smear: bool = True
    """A gated part of the previous token's vector is added to each token's."""
    backout: bool = True
    """A multiple of the stream after the middle layer is taken away before the final norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm_position != "pre":
            raise ValueError(f"nanochat's blocks norm their input (norm_position pre), got {self.norm_position!r}")
        if self.n_embd < SMEAR_CHANNELS:
            raise ValueError(f"gates read up to {SMEAR_CHANNELS} channels, n_embd is {self.n_embd}")

    def has_values(self, layer: int) -> bool:
        """Whether this layer has a value embedding: every second one, counted back from the last."""
        return self.value_embeddings and layer % 2 == (self.n_layer - 1) % 2

    def gate_parameters(self, layer: int) -> int:
        """Weights of the gates at this layer, for counting FLOPs; the smear gate is before the first."""
        value = GATE_CHANNELS * self.kv_heads if self.has_values(layer) else 0
        return value + (SMEAR_CHANNELS if self.smear and layer == 0 else 0)

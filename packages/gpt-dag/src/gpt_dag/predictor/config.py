"""The shape of a predictor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpt_dag.tags import class_counts

Mixer = Literal["window", "full", "conv"]


@dataclass(frozen=True)
class PredictorConfig:
    """The default is the seed's size: 1.6 M parameters, over 99 % of them outside the embedding."""

    vocab_size: int
    context_length: int = 256
    """Tokens that positions are prepared for; longer texts are read too, since nothing looks beyond a window."""
    n_layer: int = 5
    n_embd: int = 160
    n_head: int = 5
    d_ff: int | None = None
    """Width inside each block's feed-forward part; null: four times n_embd."""
    mixer: Mixer = "conv"
    """How tokens see each other. conv: a convolution over `window` tokens on either side, in layer i every
    `dilations[i]`-th. window: attention to `window` tokens on either side. full: attention to the whole expression.
    After a CPU minute each (docs/log.md) the first is right most often; the last fails on unseen lengths."""
    window: int = 2
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    """Over and over again where there are more layers. To read a number one must see all of it: some 14 tokens."""
    embedding_rank: int | None = None
    """Factorised embedding: vocab_size × rank × n_embd, for vocabularies that would outweigh the model; null: none."""
    max_digits: int = 4
    """Digits before the point that a number may have."""
    max_decimals: int = 4
    value_classes: int | None = None
    """Values that one token may say; null: those of `tags.VALUES`."""
    rope_theta: float = 100.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))  # JSON has lists
        least = {"vocab_size": 1, "context_length": 1, "n_layer": 1, "n_embd": 1, "n_head": 1, "window": 1}
        for name, low in {**least, "max_digits": 1, "max_decimals": 0}.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.max_digits + self.max_decimals > 16:
            raise ValueError("numbers of more than 16 digits do not fit into a plan's integers")
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations must be 1 or more each, got {self.dilations}")
        if self.mixer not in ("window", "full", "conv"):
            raise ValueError(f"mixer is window, full or conv, got {self.mixer!r}")
        if self.mixer != "conv" and (self.n_embd % self.n_head or self.head_dim % 2):
            raise ValueError(
                f"n_embd must be n_head heads of an even width, got n_embd={self.n_embd}, n_head={self.n_head}"
            )

    @property
    def mixer_flops(self) -> int | None:
        """Of a convolution, per token and layer, forward; None: attention."""
        return 2 * (2 * self.window + 1) * self.n_embd**2 if self.mixer == "conv" else None

    def layer_window(self, layer: int) -> int | None:
        """Tokens that attention looks at; None: all."""
        return 2 * self.window + 1 if self.mixer == "window" else None

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the head: it says tags, not tokens."""
        return sum(self.classes)

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def ffn_dim(self) -> int:
        return self.d_ff or 4 * self.n_embd

    @property
    def classes(self) -> tuple[int, ...]:
        """Of each column of `tags`."""
        role, place, value, *rest = class_counts(self.max_digits, self.max_decimals)
        return role, place, self.value_classes or value, *rest

    @property
    def name(self) -> str:
        """What logs call the architecture."""
        reach = "" if self.mixer == "full" else f" ±{self.window}"
        return f"{self.n_layer}L-{self.n_embd}D predictor, {self.mixer}{reach}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

"""The section `scaling` of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from gpt_core.scaling.rules import Rules

StepsBy = Literal["max_steps", "target_flops", "epochs", "param_data_ratio"]


@dataclass(frozen=True)
class ScalingConfig:
    """Sizes, horizon, batch and rates from a few numbers; what is null here stays as the other sections say."""

    depth: int | None = None
    """Layers; width and heads follow, and by `rules` batch, learning rates and weight decay."""
    aspect_ratio: int = 64
    """Channels per layer of depth."""
    head_dim: int = 128
    """Channels per head; the width is rounded up to whole heads."""
    windows: str | None = None
    """Sliding windows by layer, repeated, such as SSSL; S is a quarter of the context, the last layer always L."""
    target_flops: float | None = None
    """Train for this many FLOPs, forward and backward."""
    param_data_ratio: float | None = None
    """Train for so many tokens per parameter of blocks and head; null with a depth: 12."""
    total_batch_size: int | None = None
    """Tokens per step over all processes; null: by `rules`, or as the section training says."""
    strict_batch: bool = False
    """A batch that whole micro-steps cannot make is an error, not aligned."""
    rules: Rules = "auto"
    """auto or legacy: how batch and rates follow the depth (docs/depth.md); off: they do not."""
    keep: tuple[str, ...] = ()
    """Keys of other sections that stay as written, as those from the command line do."""
    derived: dict[str, str] = field(default_factory=dict)
    """In the configuration of a run: what this section has set, and by what."""
    steps_by: StepsBy | None = None
    """In the configuration of a run: what decided its length."""

    def __post_init__(self) -> None:
        for name in ("depth", "aspect_ratio", "head_dim", "total_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"scaling.{name} must be at least 1, got {value}")
        for name in ("target_flops", "param_data_ratio"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ValueError(f"scaling.{name} must be positive, got {value}; leave it out for none")

    @property
    def is_active(self) -> bool:
        """Whether anything is asked for."""
        wanted = (self.depth, self.windows, self.target_flops, self.param_data_ratio, self.total_batch_size)
        return any(each is not None for each in wanted)

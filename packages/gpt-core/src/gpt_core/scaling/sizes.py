"""The sizes of a model from one number, its depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

TILE = 128
"""Short windows are a multiple of so many keys: what attention kernels work on at a time."""


@dataclass(frozen=True)
class Sizes:
    """Layers, channels and heads of one model."""

    n_layer: int
    n_embd: int
    n_head: int
    nudge: int
    """Channels added to depth · aspect_ratio to make whole heads."""


def sizes_of(depth: int, aspect_ratio: int = 64, head_dim: int = 128) -> Sizes:
    """`depth` layers, depth · aspect_ratio channels rounded up to whole heads of `head_dim` channels.

    ValueError: a number below 1.
    """
    for name, value in (("depth", depth), ("aspect_ratio", aspect_ratio), ("head_dim", head_dim)):
        if value < 1:
            raise ValueError(f"scaling.{name} must be at least 1, got {value}")
    base = depth * aspect_ratio
    heads = math.ceil(base / head_dim)
    return Sizes(n_layer=depth, n_embd=heads * head_dim, n_head=heads, nudge=heads * head_dim - base)


def windows_of(pattern: str, n_layer: int, context_length: int) -> tuple[str, int | None]:
    """`window_pattern` and `window` of a model: the pattern over all layers, the last of which sees everything.

    S sees a quarter of the context, rounded up to a multiple of `TILE` keys; L all of it. None: there is no S, or it
    would see everything. ValueError: another letter, or none.
    """
    if not pattern or set(pattern) - set("SL"):
        raise ValueError(f"scaling.windows is a pattern of S (short) and L (long) such as SSSL, got {pattern!r}")
    letters = "".join(pattern[layer % len(pattern)] for layer in range(n_layer - 1)) + "L"
    window = math.ceil(math.ceil(context_length / 4) / TILE) * TILE
    if "S" not in letters or window >= context_length:
        return "L", None
    return letters, window

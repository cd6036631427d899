"""Which layer does what: the table of the records, for any depth.

| layer of 11     | 0      | 1   | 2      | 3    | 4   | 5      | 6    | 7   | 8   | 9      | 10   |
|-----------------|--------|-----|--------|------|-----|--------|------|-----|-----|--------|------|
| attention       | paired | std | paired | std  | std | paired | none | std | std | paired | std  |
| window          | short  | sh. | short  | long | sh. | short  |      | sh. | sh. | short  | long |
| key offset      |        |     |        | yes  |     |        |      |     |     |        | yes  |
| value embedding | 0      | 1   |        |      |     |        |      |     | 2   | 3      | 4    |
| ... shifted     |        | 0   | 1      |      |     |        |      |     | 2   | 3      | 4    |
| xsa             |        | yes |        | yes  | yes |        |      | yes | yes |        | yes  |
| xsa, mudd_gates |        | yes |        | yes  | yes |        |      | yes |     |        |      |
| gates, the same |        |     |        | yes  |     |        |      |     |     |        | yes  |

The layer without attention gets a skip connection from layer 3; what the stream was after layer 7 is backed out at the
end, and is what attention reads after it (`cached_attention`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from .config import SpeedrunConfig

DEPTH = 11
PAIRED, LONG = (0, 2, 5, 9), (3, 10)
VALUES, SHIFTED_VALUES = (0, 1, 8, 9, 10), (1, 2, 8, 9, 10)
SKIP_FROM, FREE, BACKOUT = 3, 6, 7
GATED_XSA = (1, 3, 4, 7)


@dataclass(frozen=True)
class Places:
    """Layers where something happens, for one depth: those of the eleven, in proportion."""

    paired: frozenset[int]
    long: frozenset[int]
    values: frozenset[int]
    shifted_values: frozenset[int]
    gated_xsa: frozenset[int]
    skip_from: int
    free: int
    """The layer without attention, where the skip connection ends."""
    backout: int
    kept: frozenset[int]
    """Layers after which something later looks at the stream."""

    @classmethod
    def of_depth(cls, n_layer: int) -> Self:
        """Layer i of eleven becomes i · (n_layer − 1) / 10, rounded half up; tricks that meet in one layer merge."""
        place = lambda i: (2 * i * (n_layer - 1) + DEPTH - 1) // (2 * (DEPTH - 1))
        several = (frozenset(map(place, layers)) for layers in (PAIRED, LONG, VALUES, SHIFTED_VALUES, GATED_XSA))
        kept = frozenset((place(SKIP_FROM), place(BACKOUT), n_layer - 2))
        return cls(*several, skip_from=place(SKIP_FROM), free=place(FREE), backout=place(BACKOUT), kept=kept)


@dataclass(frozen=True)
class LayerPlan:
    """What one layer is made of."""

    index: int
    attention: Literal["standard", "paired"] | None
    slot: int | None
    """Which of the layers with attention it is: its place in the attention banks."""
    long: bool
    """Sees the long window."""
    key_offset: bool
    value: int | None
    """Number of its value embedding and of its gate."""
    gate: bool
    """Its heads' outputs are gated."""
    xsa: bool


def plan_layers(n_layer: int, places: Places, switches: SpeedrunConfig) -> tuple[LayerPlan, ...]:
    """One plan per layer. ValueError for a model that is too shallow for its switches."""
    if switches.skip and not places.skip_from < places.free:
        raise ValueError(f"skip needs a layer before the one without attention; n_layer={n_layer} is too few")
    if switches.cached_attention and not places.free < places.backout < n_layer - 1:
        raise ValueError(f"cached_attention needs layers after the one that it reads; n_layer={n_layer} is too few")
    layers: list[LayerPlan] = []
    slots = values = 0
    with_value = places.shifted_values if switches.value_shift else places.values
    for i in range(n_layer):
        free = switches.attention_free_layer and i == places.free
        long = i in places.long and not free
        paired = switches.paired_heads and i in places.paired and not long
        value = switches.value_embeddings and i in with_value and not free
        layers.append(
            LayerPlan(
                index=i,
                attention=None if free else "paired" if paired else "standard",
                slot=None if free else slots,
                long=long,
                key_offset=switches.key_offset and long,
                value=values if value else None,
                gate=switches.attention_gates and not free and (long or not switches.mudd_gates),
                xsa=switches.xsa and not (free or paired) and (i in places.gated_xsa or not switches.mudd_gates),
            )
        )
        slots, values = slots + (not free), values + value
    return tuple(layers)

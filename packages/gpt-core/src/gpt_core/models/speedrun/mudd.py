"""Factors worked out for every token by small networks (records 81 and 85).

    factors(x) = scale · (W2 gelu(W1 x) + b2),   64 hidden units

W2 is zero at first, so that b2 alone gives the first values, those of the static parameters that the factors replace.

`mudd` (after MUDDFormer, Xiao et al. 2025, arXiv:2502.12170; two networks, scale 0.1):
    at the start of the last layer, from x:
        0–2    of (start, after layer 7, x) in what is added to the values
        3–5    of (start, after layer 7, x) in what is added to the stream
        6–7    of the value embedding, for the first and for the second half of the heads; at first 2
        8–9    of the stream and of attention in their sum; at first √1.1, 1
        10–11  of the start and of the bigram in the same; at first 0, 0.05
        12–13  of the stream and of the MLP in their sum; at first √1.1, 1
    after the last layer, from x:
        0–4    of (start, after layer 7, after layer 9, first value embedding, after layer 3), added to the stream;
               at first −0.5 for the second: backout
`mudd_gates` (two networks, the scale is learned, 0.1 at first), from x0, and from x after layer 3:
    per head of layers with xsa: its strength, at first 0; per head of layers with gates: the gate, at first 0.25;
    per layer: of x0 and of the bigram, at first 0, 0.05;
    in the second also the skip connection's, at first 0.5, and with dynamic_heads per head w1 and w2, at first 1, 0.

The start is the stream before layer 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_kernels import linear

if TYPE_CHECKING:
    from .config import SpeedrunConfig

HIDDEN = 64
SCALE = 0.1
LAST, FINAL = 14, 5
RESIDUAL, BIGRAM = 1.1**0.5, 0.05
"""First values of the lambdas of layers, see `banks`."""


class GateLayout(NamedTuple):
    """What one network of `mudd_gates` makes, in the order of its outputs."""

    xsa: tuple[int, ...]
    gates: tuple[int, ...]
    injected: tuple[int, ...]
    """Layers that add x0 and the bigram."""
    skip: bool
    dynamic: bool

    def first(self, heads: int) -> list[float]:
        """First values of all outputs."""
        zero, gate = [0.0] * heads * len(self.xsa), [0.25] * heads * len(self.gates)
        mixed = [1.0] * heads + [0.0] * heads if self.dynamic else []
        return [*zero, *gate, *[0.0, BIGRAM] * len(self.injected), *[0.5] * self.skip, *mixed]


def gate_layouts(config: SpeedrunConfig) -> tuple[GateLayout, GateLayout]:
    """Of the network that reads x0, for layers up to the source of the skip connection, and of that for later ones."""
    layers, middle, last = config.layers, config.places.skip_from, config.n_layer - 1
    choose = lambda name, early: tuple(
        i for i, plan in enumerate(layers) if getattr(plan, name) and (i <= middle) == early
    )
    injected = [i for i, plan in enumerate(layers) if plan.attention is not None and i != last]
    early = GateLayout(
        choose("xsa", True), choose("gate", True), tuple(i for i in injected if i <= middle), False, False
    )
    late = tuple(i for i in injected if i > middle)
    return early, GateLayout(choose("xsa", False), choose("gate", False), late, True, config.dynamic_heads)


def parameter_shapes(config: SpeedrunConfig) -> dict[str, tuple[int, ...]]:
    """Parameters of both kinds of networks: pairs of them, as wide as the wider one."""
    shapes: dict[str, tuple[int, ...]] = {}
    if config.mudd:
        shapes |= {"mudd_w1": (2, HIDDEN, config.n_embd), "mudd_w2": (2, LAST, HIDDEN), "mudd_b2": (2, LAST)}
    if config.mudd_gates:
        outputs = max(len(layout.first(config.n_head)) for layout in gate_layouts(config))
        shapes |= {"mudd_gate_w1": (2, HIDDEN, config.n_embd), "mudd_gate_w2": (2, outputs, HIDDEN)}
        shapes |= {"mudd_gate_b2": (2, outputs), "mudd_gate_scale": ()}
    return shapes


def first_values(config: SpeedrunConfig) -> dict[str, Tensor]:
    """Of the parameters that are neither zero nor random."""
    values = {}
    if config.mudd:
        last = [0, 0, 0, 0, 0, 0, 2, 2, RESIDUAL, 1, 0, BIGRAM, RESIDUAL, 1]
        final = [0, -0.5 if config.backout else 0, 0, 0, 0]
        values["mudd_b2"] = torch.tensor([last, final + [0] * (LAST - FINAL)]) / SCALE
    if config.mudd_gates:
        early, late = (layout.first(config.n_head) for layout in gate_layouts(config))
        outputs = max(len(early), len(late))
        rows = [row + [0.0] * (outputs - len(row)) for row in (early, late)]
        values |= {"mudd_gate_b2": torch.tensor(rows) / SCALE, "mudd_gate_scale": torch.tensor(SCALE)}
    return values


def factors(x_BTD: Tensor, w1: Tensor, w2: Tensor, b2: Tensor, count: int, scale: Tensor | float) -> Tensor:
    """(B, T, count): the first outputs of one network."""
    hidden_BTU = F.gelu(linear(x_BTD, w1))
    return (linear(hidden_BTU, w2[:count]) + b2[:count]) * scale


class Gates(NamedTuple):
    """What `mudd_gates` makes, by layer."""

    xsa: dict[int, Tensor]
    """(B, T, H)"""
    gates: dict[int, Tensor]
    """(B, T, H)"""
    x0: dict[int, Tensor]
    """(B, T, 1), as those below"""
    bigram: dict[int, Tensor]
    skip: Tensor | None
    dynamic: tuple[Tensor, Tensor] | None
    """w1 and w2, (B, T, H)"""


def cut_gates(factors_BTN: Tensor, layout: GateLayout, heads: int) -> Gates:
    """The outputs of a network by what they are for."""
    H = heads
    sizes = [H] * len(layout.xsa) + [H] * len(layout.gates) + [1] * 2 * len(layout.injected)
    sizes += [1] * layout.skip + [H] * 2 * layout.dynamic
    parts = list(factors_BTN.split(sizes, -1))
    take = lambda layers: {i: parts.pop(0) for i in layers}
    xsa, gates = take(layout.xsa), take(layout.gates)
    x0, bigram = {}, {}
    for i in layout.injected:
        x0[i], bigram[i] = parts.pop(0), parts.pop(0)
    skip = parts.pop(0) if layout.skip else None
    return Gates(xsa, gates, x0, bigram, skip, (parts[0], parts[1]) if layout.dynamic else None)

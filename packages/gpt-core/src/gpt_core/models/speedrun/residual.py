"""The stream through the layers in the way of record 68; `sublayers` has that of records 73 and later.

Dimensions: B rows, T tokens, D width, E channels of the bigram table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .attention import Row, attend, norm
from .banks import Scalars
from .embeddings import add_bigram
from .gates import HeadGates, skip_gate

if TYPE_CHECKING:
    from .model import Speedrun


class Given(NamedTuple):
    """What the layers are given."""

    x0_BTD: Tensor
    """The normed, smeared embedding."""
    bigram_BTE: Tensor | None
    values: tuple[Tensor, ...]
    """(B, T, D) of every table of value embeddings."""
    row: Row
    scalars: Scalars


def once_per_layer(model: Speedrun, given: Given) -> Tensor:
    """The stream after all layers, before the final norm, (B, T, D); the equations are in `model`."""
    config, scalars, places = model.config, given.scalars, model.config.places
    weights, mlps, gates = model.attention_weights(scalars), model.mlp_weights(), HeadGates(model)
    x0_lambdas = model.x0_lambdas.unbind(0) if config.x0_lambdas else None
    after: dict[int, Tensor] = {}
    x_BTD = given.x0_BTD
    for plan in config.layers:
        i = plan.index
        if config.skip and i == places.free:
            x_BTD = x_BTD + skip_gate(model, given) * after[places.skip_from]
        x_BTD = scalars.residual[i] * x_BTD
        if x0_lambdas is not None:
            x_BTD = x_BTD + x0_lambdas[i] * given.x0_BTD
        if given.bigram_BTE is not None:
            x_BTD = add_bigram(x_BTD, scalars.bigram[i], given.bigram_BTE)
        if plan.attention is not None:
            h_BTD = norm(x_BTD)
            x_BTD = x_BTD + attend(h_BTD, weights[i], plan, given.row, gates.extras(h_BTD, plan, given.values))
        x_BTD = x_BTD + model.mlp_out(norm(x_BTD), i, mlps[i])
        if i in places.kept:
            after[i] = x_BTD
    return x_BTD if scalars.backout is None else x_BTD - scalars.backout * after[places.backout]

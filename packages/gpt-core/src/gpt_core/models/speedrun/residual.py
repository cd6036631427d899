"""The stream through the layers: in the way of record 68, and in that of records 73 and later (`sublayer_lambdas`).

Dimensions: B rows, T tokens, D width, E channels of the bigram table, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gpt_kernels import linear

from . import mudd
from .attention import Extras, Row, attend, head_gate, norm
from .banks import Scalars
from .config import GATE_CHANNELS
from .embeddings import add_bigram
from .plan import LayerPlan

if TYPE_CHECKING:
    from .model import Speedrun

START = -1
"""Key of what the stream is before layer 0, beside the numbers of layers."""


class Given(NamedTuple):
    """What the layers are given."""

    x0_BTD: Tensor
    """The normed, smeared embedding."""
    bigram_BTE: Tensor | None
    values: tuple[Tensor, ...]
    """(B, T, D) of every table of value embeddings."""
    row: Row
    scalars: Scalars


class Lambdas(NamedTuple):
    """Factors of one layer with `sublayer_lambdas`: 0-d, or (B, T, 1)."""

    stream_attention: Tensor
    attention: Tensor
    stream_mlp: Tensor
    mlp: Tensor
    x0: Tensor | None = None
    bigram: Tensor | None = None


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
        after[i] = x_BTD
    return x_BTD if scalars.backout is None else x_BTD - scalars.backout * after[places.backout]


def twice_per_layer(model: Speedrun, given: Given) -> Tensor:
    """The same with factors around attention and MLP each, and what builds on them:

        x = b₀ · bigram + x0                                                           (start)
        for every layer i with attention, of input y:
            x = ra_i · x + pa_i · attention_i(n(y)) + λ_i · x0 + b_i · bigram          (no bigram for i = 0)
        x = rm_i · x + pm_i · mlp_i(n(x))
    y is x, or in the last third, with cached_attention, the stream before it.

    With parallel_lanes the last third has a second stream z, at first x: the MLP reads z, and z gets what attention and
    MLP add with factors of its own, without x0 and bigram; the mean of both goes on. drop_post_attention leaves out
    pa_i in the other layers. (Record 73 also multiplies x0 and bigram by pa_i, here as in 74.)

    With mudd the factors of the last layer are worked out for every token, its start takes the place of x0, and values
    and stream get parts of earlier streams; with mudd_gates those of x0 and bigram are in all layers.
    """
    config, scalars, places = model.config, given.scalars, model.config.places
    weights, mlps, gates = model.attention_weights(scalars), model.mlp_weights(), HeadGates(model)
    lambdas, second_lambdas = static_lambdas(model)
    if config.mudd_gates:
        gates.dynamic = model.token_gates(0, given.x0_BTD)
        lambdas = with_token_gates(lambdas, gates.dynamic)
    x_BTD = given.x0_BTD
    if (first := lambdas[0].bigram) is not None and given.bigram_BTE is not None:
        x_BTD = add_bigram(x_BTD, first, given.bigram_BTE)
    after, z_BTD = {START: x_BTD}, None
    last = config.n_layer - 1
    for plan in config.layers:
        i, factors, x0_BTD = plan.index, lambdas[plan.index], given.x0_BTD
        if config.mudd_gates and i == places.skip_from + 1:
            gates.dynamic = model.token_gates(1, x_BTD)
            lambdas = with_token_gates(lambdas, gates.dynamic)
            factors = lambdas[i]
        if config.parallel_lanes and i == places.backout:
            z_BTD = x_BTD
        if config.skip and i == places.free:
            add = gates.skip(given) * after[places.skip_from]
            x_BTD, z_BTD = x_BTD + add, None if z_BTD is None else z_BTD + add
        if plan.attention is not None:
            cached = config.cached_attention and i > places.backout
            h_BTD = norm(after[places.backout] if cached else x_BTD)
            if config.mudd and i == last:
                x_BTD, extras, factors = mix_sources(model, gates, h_BTD, x_BTD, plan, given, after)
                x0_BTD = after[START]
            else:
                extras = gates.extras(h_BTD, plan, given.values)
            out_BTD = attend(h_BTD, weights[i], plan, given.row, extras)
            plain = config.drop_post_attention and z_BTD is None
            x_BTD = factors.stream_attention * x_BTD + (out_BTD if plain else factors.attention * out_BTD)
            if factors.x0 is not None:
                x_BTD = x_BTD + factors.x0 * x0_BTD
            if factors.bigram is not None and given.bigram_BTE is not None and i:
                x_BTD = add_bigram(x_BTD, factors.bigram, given.bigram_BTE)
            if z_BTD is not None:
                second = second_lambdas[i]
                z_BTD = second.stream_attention * z_BTD + second.attention * out_BTD
        if z_BTD is None:
            x_BTD = factors.stream_mlp * x_BTD + factors.mlp * model.mlp_out(norm(x_BTD), i, mlps[i])
        else:
            out_BTD, second = model.mlp_out(norm(z_BTD), i, mlps[i]), second_lambdas[i]
            x_BTD = factors.stream_mlp * x_BTD + factors.mlp * out_BTD
            z_BTD = second.stream_mlp * z_BTD + second.mlp * out_BTD
        after[i] = x_BTD
    if z_BTD is not None:
        x_BTD = (x_BTD + z_BTD) * 0.5
    if config.mudd:
        return mix_final(model, x_BTD, given, after)
    return x_BTD if scalars.backout is None else x_BTD - scalars.backout * after[places.backout]


def static_lambdas(model: Speedrun) -> tuple[list[Lambdas], list[Lambdas]]:
    """Of every layer, and of its second lane (the same where there are none)."""
    config, L = model.config, model.config.n_layer
    dtype = model.lm_head.dtype
    unbound = lambda parameter: parameter.to(dtype).unbind(0)
    streams = [unbound(row) for row in model.resid_lambdas.unbind(0)]
    posts = [unbound(row) for row in model.post_lambdas.flatten(1).unbind(0)]  # attention, MLP; each of both lanes
    lanes = 2 if config.parallel_lanes else 1
    static = not config.mudd_gates
    x0 = unbound(model.x0_lambdas) if config.x0_lambdas and static else [None] * L
    bigram = unbound(model.bigram_lambdas) if config.bigram_embeddings and static else [None] * L
    of_lane = lambda lane: [
        Lambdas(streams[i][0], posts[i][lane], streams[i][1], posts[i][lanes + lane], x0[i], bigram[i])
        for i in range(L)
    ]
    return of_lane(0), of_lane(lanes - 1)


def with_token_gates(lambdas: list[Lambdas], gates: mudd.Gates) -> list[Lambdas]:
    """Factors of x0 and bigram from the gates of those layers that they are for."""
    return [
        factors._replace(x0=gates.x0[i], bigram=gates.bigram[i]) if i in gates.x0 else factors
        for i, factors in enumerate(lambdas)
    ]


def skip_gate(model: Speedrun, given: Given) -> Tensor:
    """(B, T, 1): σ(skip) · 2σ(g · x0[:12]), at first 0.18."""
    gate_BT1 = linear(given.x0_BTD[..., :GATE_CHANNELS], model.skip_gate)
    return torch.sigmoid(given.scalars.skip) * 2 * torch.sigmoid(gate_BT1)


class HeadGates:
    """The gates of a forward pass: those of the banks, unbound once, or those made for every token."""

    def __init__(self, model: Speedrun):
        config = model.config
        self.model, self.dynamic = model, None
        static = not config.mudd_gates
        self.heads = model.attn_gate_bank.unbind(0) if config.attention_gates and static else None
        self.values = model.ve_gate_bank.unbind(0) if config.value_gates else None
        self.xsa = model.xsa_alphas.unbind(0) if config.xsa and static else None

    dynamic: mudd.Gates | None

    def extras(self, h_BTD: Tensor, plan: LayerPlan, values: tuple[Tensor, ...]) -> Extras:
        """What a layer's attention takes beside its normed input h."""
        if plan.value is None:
            return self.around(None, h_BTD, plan)
        value_BTD = values[plan.value]
        if self.values is not None:
            factor_BTH = 2 * head_gate(self._gate_input(h_BTD, value_BTD), self.values[plan.value])
            value_BTD = per_head(factor_BTH, value_BTD)
        return self.around(value_BTD, h_BTD, plan)

    def around(self, value_BTD: Tensor | None, h_BTD: Tensor, plan: LayerPlan) -> Extras:
        """The same with values that are scaled already."""
        i, made = plan.index, self.dynamic
        if made is not None:
            return Extras(value_BTD, made.gates.get(i), made.xsa.get(i), self._mixing(plan, made))
        gated = plan.gate and self.heads is not None and plan.slot is not None
        gate_BTH = head_gate(h_BTD, self.heads[plan.slot]) if gated else None
        return Extras(value_BTD, gate_BTH, self.xsa[i] if plan.xsa and self.xsa is not None else None)

    def skip(self, given: Given) -> Tensor:
        """(B, T, 1): of the skip connection."""
        if self.dynamic is None or self.dynamic.skip is None:
            return skip_gate(self.model, given)
        return torch.sigmoid(given.scalars.skip) * self.dynamic.skip

    def _gate_input(self, h_BTD: Tensor, value_BTD: Tensor) -> Tensor:
        """(B, T, 12)"""
        if not self.model.config.value_gate_token:
            return h_BTD
        half = GATE_CHANNELS // 2
        return torch.cat((h_BTD[..., :half], value_BTD[..., :half]), -1)

    def _mixing(self, plan: LayerPlan, made: mudd.Gates) -> tuple[Tensor, Tensor] | None:
        return made.dynamic if plan.index == self.model.config.n_layer - 1 else None


def per_head(factor_BTH: Tensor, x_BTD: Tensor) -> Tensor:
    """x with every head's channels times its factor."""
    return (factor_BTH.unsqueeze(-1) * x_BTD.unflatten(-1, (factor_BTH.shape[-1], -1))).flatten(2)


def mix_sources(
    model: Speedrun,
    gates: HeadGates,
    h_BTD: Tensor,
    x_BTD: Tensor,
    plan: LayerPlan,
    given: Given,
    after: dict[int, Tensor],
) -> tuple[Tensor, Extras, Lambdas]:
    """Start of the last layer with `mudd`: the stream with earlier ones mixed in, what attention takes, and factors."""
    f = model.mudd_factors(0, x_BTD, mudd.LAST).split(1, -1)
    start, before = after[START], after[model.config.places.backout]
    value_BTD = f[0] * start + f[1] * before + f[2] * x_BTD
    if plan.value is not None:
        halves_BTH = torch.cat(f[6:8], -1).repeat_interleave(model.config.n_head // 2, -1)
        value_BTD = value_BTD + per_head(halves_BTH, given.values[plan.value])
    x_BTD = (1 + f[5]) * x_BTD + f[3] * start + f[4] * before
    return x_BTD, gates.around(value_BTD, h_BTD, plan), Lambdas(f[8], f[9], f[12], f[13], f[10], f[11])


def mix_final(model: Speedrun, x_BTD: Tensor, given: Given, after: dict[int, Tensor]) -> Tensor:
    """After the last layer with `mudd`: the stream with earlier ones mixed in; backout is one of them."""
    config, places = model.config, model.config.places
    f = model.mudd_factors(1, x_BTD, mudd.FINAL).split(1, -1)
    sources = (
        after[START],
        after[places.backout],
        after[config.n_layer - 2],
        given.values[0],
        after[places.skip_from],
    )
    for factor, source in zip(f, sources, strict=True):
        x_BTD = x_BTD + factor * source
    return x_BTD

"""The stream through the layers with factors around attention and MLP each (records 73 and later), and what builds on
them: two lanes, attention that reads an earlier stream, factors made for every token.

Dimensions: B rows, T tokens, D width, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from . import mudd
from .attention import Extras, attend, norm
from .embeddings import add_bigram
from .gates import HeadGates, per_head
from .plan import LayerPlan
from .residual import Given

if TYPE_CHECKING:
    from .model import Speedrun

START = -1
"""Key of what the stream is before layer 0, beside the numbers of layers."""


class Lambdas(NamedTuple):
    """Factors of one layer with `sublayer_lambdas`: 0-d, or (B, T, 1)."""

    stream_attention: Tensor
    attention: Tensor
    stream_mlp: Tensor
    mlp: Tensor
    x0: Tensor | None = None
    bigram: Tensor | None = None


def twice_per_layer(model: Speedrun, given: Given) -> Tensor:
    """The stream after all layers, before the final norm, (B, T, D):

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
        if i in places.kept:
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

"""Nanochat: a GPT with value embeddings, factors of the residual stream, smear and backout.

Dimensions: B batch, T tokens, D width, G key/value heads, K head dimension.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention import KVCache
from ..block import Block
from ..gpt import GPT
from ..linear import Linear
from ..positions import Rotary
from .config import GATE_CHANNELS, SMEAR_CHANNELS, NanochatConfig

VALUE_GATE = 3.0
"""The largest factor of a value embedding."""


class NanochatBlock(Block):
    """x + f(norm(x)), with the token's value embedding in attention where the layer has one."""

    def __init__(self, config: NanochatConfig, layer: int):
        super().__init__(config, layer)
        self.value_gate = Linear(GATE_CHANNELS, config.kv_heads, bias=False) if config.has_values(layer) else None

    def forward(
        self,
        x_BTD: Tensor,
        rotary: Rotary | None = None,
        cache: KVCache | None = None,
        cu_seqlens: Tensor | None = None,
        value_BTD: Tensor | None = None,
    ) -> Tensor:
        """value_BTD: (B, T, G·K), the embedding; None for a layer without one."""
        normed_BTD = self.attn_norm(x_BTD)
        values_BGTK = None
        if self.value_gate is not None and value_BTD is not None:
            gate_BTG = VALUE_GATE * torch.sigmoid(self.value_gate(normed_BTD[..., :GATE_CHANNELS]))
            values_BTGK = gate_BTG.unsqueeze(-1) * value_BTD.unflatten(-1, (gate_BTG.shape[-1], -1))
            values_BGTK = values_BTGK.transpose(1, 2).to(x_BTD.dtype)
        x_BTD = x_BTD + self.attn(normed_BTD, rotary, cache, cu_seqlens, values_BGTK)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))


class Nanochat(GPT):
    """The model of `NanochatConfig`. Beside a GPT's attributes: `value_embeds` (layer -> nn.Embedding),
    `resid_lambdas` and `x0_lambdas` (n_layer,), `smear_gate`, `smear_lambda`, `backout_lambda` (1,)."""

    config: NanochatConfig

    def __init__(self, config: NanochatConfig):
        super().__init__(config)
        self.looks_back = config.smear
        layers, width = range(config.n_layer), config.kv_heads * config.head_dim
        self.value_embeds = nn.ModuleDict(
            {str(i): nn.Embedding(config.padded_vocab_size, width) for i in layers if config.has_values(i)}
        )
        self.resid_lambdas = nn.Parameter(torch.empty(config.n_layer)) if config.resid_lambdas else None
        self.x0_lambdas = nn.Parameter(torch.empty(config.n_layer)) if config.x0_lambdas else None
        self.smear_gate = Linear(SMEAR_CHANNELS, 1, bias=False) if config.smear else None
        self.smear_lambda = nn.Parameter(torch.empty(1)) if config.smear else None
        self.backout_lambda = nn.Parameter(torch.empty(1)) if config.backout else None
        init_extras(self)

    def make_block(self, layer: int) -> nn.Module:
        return NanochatBlock(self.config, layer)

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        x_BTD, rotary = self.embedded(ids_BT, cache, cu_seqlens)
        if self.smear_gate is not None:
            last_BTD = shifted(x_BTD, cu_seqlens) if cache is None else self._remembered(ids_BT, cache)
            x_BTD = self.smeared(x_BTD, last_BTD)
        first_BTD, middle_BTD = x_BTD, None
        for layer, block in enumerate(self.blocks):
            if self.resid_lambdas is not None:
                x_BTD = self.resid_lambdas[layer] * x_BTD
            if self.x0_lambdas is not None:
                x_BTD = x_BTD + self.x0_lambdas[layer] * first_BTD
            value = self.value_embeds[str(layer)](ids_BT) if self.config.has_values(layer) else None
            x_BTD = block(x_BTD.to(first_BTD.dtype), rotary, cache, cu_seqlens, value)
            if layer == self.config.n_layer // 2:
                middle_BTD = x_BTD
        if self.backout_lambda is not None and middle_BTD is not None:
            x_BTD = x_BTD - self.backout_lambda * middle_BTD
        if cache is not None:
            cache.advance(ids_BT.shape[1])
        return self.norm(x_BTD.to(first_BTD.dtype))

    def smeared(self, x_BTD: Tensor, last_BTD: Tensor) -> Tensor:
        """x[t] + lambda · sigmoid(gate · x[t, :24]) · x[t − 1]; last_BTD: x[t − 1], 0 where no token is before."""
        assert self.smear_gate is not None and self.smear_lambda is not None
        gate_BT1 = self.smear_lambda * torch.sigmoid(self.smear_gate(x_BTD[..., :SMEAR_CHANNELS]))
        return (x_BTD + gate_BT1 * last_BTD).to(x_BTD.dtype)

    def _remembered(self, ids_BT: Tensor, cache: KVCache) -> Tensor:
        """The vectors of the tokens before, of which the cache knows the ids."""
        before_BT = cache.before(ids_BT)
        places = (cache.positions(ids_BT.shape[1]) - 1).clamp(min=0)
        last_BTD, _ = self._vectors(before_BT.clamp(min=0), places)
        return last_BTD.masked_fill((before_BT < 0).unsqueeze(-1), 0.0)


def shifted(x_BTD: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
    """Every token's vector at the place of the next one; 0 for the first token of a row or document."""
    last_BTD = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
    if cu_seqlens is None:
        return last_BTD
    is_first_T = torch.zeros(x_BTD.shape[1] + 1, dtype=torch.bool, device=x_BTD.device)
    is_first_T = is_first_T.index_fill(0, cu_seqlens.long(), True)[:-1]
    return last_BTD.masked_fill(is_first_T[:, None], 0.0)


def init_extras(model: Nanochat) -> None:
    """First values as nanochat sets them: matrices of the blocks uniform with standard deviation 1/√D (of the MLP's
    first 0.4 of it) and 0 where they write to the stream, gates small and positive, factors falling with the layer."""
    if model.embed.weight.is_meta:
        return
    config = model.config
    generator = None
    if config.init_seed is not None:
        generator = torch.Generator(model.embed.weight.device).manual_seed(config.init_seed + 1)
    bound = 3**0.5 * config.n_embd**-0.5
    bounds = {
        "attn.qkv.weight": (-bound, bound),
        "ffn.up.weight": (-0.4 * bound, 0.4 * bound),
        "ffn.gate.weight": (-0.4 * bound, 0.4 * bound),
        "value_gate.weight": (0.0, 0.02),
        "smear_gate.weight": (0.0, 0.02),
    }
    depth = torch.linspace(0.0, 1.0, config.n_layer)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            end = next((end for end in bounds if name.endswith(end)), None)
            if end is not None:
                parameter.uniform_(*bounds[end], generator=generator)
            elif name.startswith("value_embeds."):
                parameter.uniform_(-bound, bound, generator=generator)
        for parameter, value in (
            (model.resid_lambdas, 1.15 - 0.10 * depth),
            (model.x0_lambdas, 0.20 - 0.15 * depth),
            (model.smear_lambda, torch.zeros(1)),
            (model.backout_lambda, torch.full((1,), 0.2)),
        ):
            if parameter is not None:
                parameter.copy_(value)


DEFAULTS: dict[str, Any] = {"rope_theta": 100_000.0, "rope_style": "half", "qk_norm_gain": 1.2, "norm_eps": 1e-6}
"""What nanochat sets beside the preset `depth`."""


def nanochat(vocab_size: int, context_length: int, preset: str = "depth", **fields: Any) -> Nanochat:
    """Build a Nanochat from a preset and any fields of NanochatConfig, which override it and `DEFAULTS`."""
    sizes = {"vocab_size": vocab_size, "context_length": context_length}
    return Nanochat(NanochatConfig.from_preset(preset, **{**sizes, **DEFAULTS, **fields}))


nanochat.accepts = NanochatConfig  # ty: ignore[missing-attribute]  # the config checker reads valid keywords from here

"""The speedrun's model: eleven layers over banks of weights.

Dimensions: B rows, T tokens, D width, V padded vocabulary, F hidden width of the MLP.

    e = smear(embed[ids]);   x = x0 = n(e);   xb = bigram_embed[hash(ids)]
    for every layer i:
        x += σ(skip) · 2σ(g · x0[:12]) · (x after layer 3)             before the layer without attention
        x  = residual_i · x + x0_lambda_i · x0 + bigram_i · xb
        x += attention_i(n(x));   x += relu(n(x) Wfcᵀ)² Wproj
    x = n(x − backout · (x after layer 7));   logits = 23 σ((x lm_head + 5) / 7.5)

That is record 68 (`residual`); `sublayers` has later records. Source: KellerJordan/modded-nanogpt; each
trick is a switch of `SpeedrunConfig`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpt_kernels
from gpt_kernels import relu2_mlp

from . import banks, mudd, residual, sublayers
from .attention import AttentionWeights, Row, norm
from .banks import Scalars
from .config import SpeedrunConfig
from .embeddings import bigram_ids, bigram_signs, document_starts, smear
from .fp8 import FP8Backend, check_fp8, fp8_relu2_mlp
from .rotary import RotaryState


class Speedrun(nn.Module):
    """forward(ids (B, T)) -> logits (B, T, V); parameters and their names: `banks`.

    Rows (B > 1) know nothing of each other. cu_seqlens: documents of one packed row, apart in attention; the smear, the
    bigram and the key offset of a document's first token look at the last token of the one before, as upstream, unless
    the configuration isolates documents.
    """

    supports_packing = True

    attn: nn.Parameter
    qk: nn.Parameter
    vo: nn.Parameter
    mlp: nn.Parameter
    embed: nn.Parameter
    lm_head: nn.Parameter
    value_embed: nn.Parameter
    bigram_embed: nn.Parameter
    attn_gate_bank: nn.Parameter
    ve_gate_bank: nn.Parameter
    smear_gate: nn.Parameter
    skip_gate: nn.Parameter
    x0_lambdas: nn.Parameter
    scalars: nn.Parameter
    resid_lambdas: nn.Parameter
    post_lambdas: nn.Parameter
    bigram_lambdas: nn.Parameter
    xsa_alphas: nn.Parameter
    mudd_w1: nn.Parameter
    mudd_w2: nn.Parameter
    mudd_b2: nn.Parameter
    mudd_gate_w1: nn.Parameter
    mudd_gate_w2: nn.Parameter
    mudd_gate_b2: nn.Parameter
    mudd_gate_scale: nn.Parameter
    signs: Tensor
    """(8192, E) of ±1"""
    mlp_amax: Tensor
    """(L,): the largest activation of each MLP in the last forward pass of training"""
    fp8_backend: FP8Backend = "scaled_mm"
    """Of MLPs in float8; "emulated" for what it does, on any machine."""

    def __init__(self, config: SpeedrunConfig):
        super().__init__()
        self.config = self._architecture = config
        for name, parameter in banks.new_parameters(config).items():
            self.register_parameter(name, parameter)
        if config.bigram_signs:
            self.register_buffer("signs", banks.new_signs(config))
        if config.fp8_mlp == "both":
            self.register_buffer("mlp_amax", torch.zeros(config.n_layer))
        self.rotary = RotaryState(config)
        banks.init_weights(self, config)

    def train(self, mode: bool = True) -> Self:
        """ValueError for training with MLPs in float8 where there is none; to evaluate and generate none is needed."""
        if mode and self.config.fp8_mlp != "off" and self.fp8_backend == "scaled_mm":
            check_fp8()
        return super().train(mode)

    def forward(self, ids_BT: Tensor, *, only_last: bool = False, cu_seqlens: Tensor | None = None) -> Tensor:
        """Capped logits (B, T, V) of the next token at every position; only_last gives (B, 1, V)."""
        x_BTD = self.hidden(ids_BT, cu_seqlens=cu_seqlens)
        return self.logits(x_BTD[:, -1:] if only_last else x_BTD)

    def hidden(self, ids_BT: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Vectors after the final norm, (B, T, D): what the head reads."""
        config, scalars, row = self.config, Scalars(self.config, self.scalars), self._row(ids_BT, cu_seqlens)
        e_BTD = F.embedding(ids_BT, self.embed)
        if config.smear:
            e_BTD = smear(e_BTD, self.smear_gate, scalars.smear, row.starts_BT)
        bigram_BTE, values = self._bigram(ids_BT, row.starts_BT), self._values(ids_BT)
        given = residual.Given(norm(e_BTD), bigram_BTE, values, row, scalars)
        stream = sublayers.twice_per_layer if config.sublayer_lambdas else residual.once_per_layer
        return norm(stream(self, given))

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Head and soft cap: (..., D) -> (..., V), float32 where capped."""
        logits_BTV = gpt_kernels.linear(x_BTD, self.lm_head.t())
        cap = self.config.logit_softcap
        return gpt_kernels.softcap(logits_BTV, cap) if cap else logits_BTV

    def head_weight(self) -> Tensor:
        """(V, D), a view: logits are x times this, transposed, then capped by `config.logit_softcap`."""
        return self.lm_head.t()

    def set_windows(self, short: int, long: int, *, yarn: bool = True) -> None:
        """Tokens before itself that a token sees from now on; see `RotaryState.set_windows`."""
        self.rotary.set_windows(short, long, yarn=yarn)

    @property
    def architecture(self) -> SpeedrunConfig:
        """The configuration with the windows of now, by which `gpt_core.monitor` counts FLOPs."""
        now = (self.rotary.short, self.rotary.long)
        if (self._architecture.window_short, self._architecture.window_long) != now:
            self._architecture = dataclasses.replace(self.config, window_short=now[0], window_long=now[1])
        return self._architecture

    def num_parameters(self) -> dict[str, int]:
        """Parameters by group: attention, mlp, embed, head, value and bigram tables, gates, scalars; and total."""
        counts = dict.fromkeys(GROUPS, 0)
        for name, parameter in self.named_parameters():
            counts[next(group for group, names in GROUPS.items() if name.startswith(names))] += parameter.numel()
        return {**counts, "total": sum(counts.values())}

    # --- What the layers in `residual` take -------------------------------------------------------------------------

    def attention_weights(self, scalars: Scalars) -> dict[int, AttentionWeights]:
        """By layer. Banks are unbound once: an index per layer would make a gradient of the whole bank for each."""
        D, plans = self.config.n_embd, [plan for plan in self.config.layers if plan.slot is not None]
        if self.config.pair_banks:
            A, H = len(plans), self.config.n_head
            qk = self.qk[: A * H].view(A, 2 * D, D).unbind(0)
            v, o = self.vo[: 2 * A].view(A, 2, D, D).unbind(1)
            slots = [(qk_2DD, v_DD, o_DD) for qk_2DD, v_DD, o_DD in zip(qk, v.unbind(0), o.unbind(0), strict=True)]
        else:
            slots = [(slot[: 3 * D], slot[3 * D :]) for slot in self.attn.unbind(0)[: len(plans)]]
        weights = {}
        for plan, (*qkv, out) in zip(plans, slots, strict=True):
            whole = qkv[0] if len(qkv) == 1 else torch.cat(qkv)
            weights[plan.index] = AttentionWeights(scalars.qkv[plan.index] * whole, scalars.out[plan.index] * out)
        return weights

    def mlp_weights(self) -> list[tuple[Tensor, Tensor]]:
        """(fc, proj), each (F, D), by layer."""
        matrices = self.mlp.flatten(0, 1).unbind(0)
        return list(zip(matrices[0::2], matrices[1::2], strict=True))

    def mlp_out(self, h_BTD: Tensor, layer: int, weights: tuple[Tensor, Tensor]) -> Tensor:
        """relu(h Wfcᵀ)² Wproj; in training with forward products in float8 where the configuration says so."""
        if self.config.fp8_mlp == "off" or not self.training:
            return relu2_mlp(h_BTD, *weights)
        amax = self.mlp_amax[layer] if self.config.fp8_mlp == "both" else None
        return fp8_relu2_mlp(h_BTD, *weights, amax, self.fp8_backend)

    def mudd_factors(self, network: int, x_BTD: Tensor, count: int) -> Tensor:
        """(B, T, count) of one of the two networks of `mudd`."""
        weights = self.mudd_w1[network], self.mudd_w2[network], self.mudd_b2[network]
        return mudd.factors(x_BTD, *weights, count, mudd.SCALE)

    def token_gates(self, network: int, x_BTD: Tensor) -> mudd.Gates:
        """What one of the two networks of `mudd_gates` makes."""
        layout = mudd.gate_layouts(self.config)[network]
        weights = self.mudd_gate_w1[network], self.mudd_gate_w2[network], self.mudd_gate_b2[network]
        count = len(layout.first(self.config.n_head))
        scale = self.mudd_gate_scale.to(x_BTD.dtype)
        return mudd.cut_gates(mudd.factors(x_BTD, *weights, count, scale), layout, self.config.n_head)

    def _bigram(self, ids_BT: Tensor, starts_BT: Tensor | None) -> Tensor | None:
        """(B, T, E)"""
        if not self.config.bigram_embeddings:
            return None
        bigram_BTE = F.embedding(bigram_ids(ids_BT, len(self.bigram_embed), starts_BT), self.bigram_embed)
        return bigram_BTE * bigram_signs(ids_BT, self.signs, starts_BT) if self.config.bigram_signs else bigram_BTE

    def _values(self, ids_BT: Tensor) -> tuple[Tensor, ...]:
        """(B, T, D) of every table. One look-up for all: each has a gradient of the size of all tables."""
        if not self.config.value_embeddings:
            return ()
        first_row_N = torch.arange(self.config.value_layers, device=ids_BT.device) * self.config.padded_vocab_size
        return F.embedding(ids_BT + first_row_N[:, None, None], self.value_embed).unbind(0)

    def _row(self, ids_BT: Tensor, cu_seqlens: Tensor | None) -> Row:
        B, T = ids_BT.shape
        if cu_seqlens is not None and B != 1:
            raise ValueError(f"packed documents (cu_seqlens) come in one row, got {B}")
        starts = self.config.isolate_documents and cu_seqlens is not None
        return Row(
            heads=self.config.n_head,
            tables=self.rotary.tables(T, self.embed.dtype),
            scale=self.rotary.scale,
            window_short=self.rotary.short if self.config.windows else None,
            window_long=self.rotary.long if self.config.windows else None,
            cu_seqlens=cu_seqlens,
            starts_BT=document_starts(cu_seqlens, T) if starts else None,
            backend=self.config.attention_backend,
        )


GROUPS: dict[str, tuple[str, ...]] = {
    "gates": ("attn_gate", "ve_gate", "smear_gate", "skip_gate", "mudd"),
    "scalars": ("scalars", "x0_", "resid_", "post_", "bigram_lambdas", "xsa_"),
    "attention": ("attn", "qk", "vo"),
    "mlp": ("mlp",),
    "embed": ("embed",),
    "head": ("lm_head",),
    "value": ("value_embed",),
    "bigram": ("bigram_embed",),
}
"""How names of parameters begin, by group; the first group that fits."""


def speedrun(vocab_size: int, context_length: int = 2048, **fields: Any) -> Speedrun:
    """Build a speedrun model from any fields of SpeedrunConfig."""
    return Speedrun(SpeedrunConfig.from_dict({"vocab_size": vocab_size, "context_length": context_length, **fields}))


speedrun.accepts = SpeedrunConfig  # ty: ignore[missing-attribute]  # the config checker reads it

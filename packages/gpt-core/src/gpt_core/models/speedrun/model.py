"""The speedrun's model: eleven layers over banks of weights.

Dimensions: B rows, T tokens, D width, V padded vocabulary, F hidden width of the MLP.

    e = smear(embed[ids]);   x = x0 = n(e);   xb = bigram_embed[hash(ids)]
    for every layer i:
        x += σ(skip) · 2σ(g · x0[:12]) · (x after layer 3)             before the layer without attention
        x  = residual_i · x + x0_lambda_i · x0 + bigram_i · xb
        x += attention_i(n(x));   x += relu(n(x) Wfcᵀ)² Wproj
    x = n(x − backout · (x after layer 7));   logits = 23 σ((x lm_head + 5) / 7.5)

Source: KellerJordan/modded-nanogpt, record 68; each trick is a switch of `SpeedrunConfig`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gpt_kernels
from gpt_kernels import relu2_mlp

from . import banks
from .attention import AttentionWeights, Row, attend, norm
from .banks import Scalars
from .config import GATE_CHANNELS, SpeedrunConfig
from .embeddings import bigram_ids, document_starts, smear
from .plan import LayerPlan
from .rotary import RotaryState


class Speedrun(nn.Module):
    """forward(ids (B, T)) -> logits (B, T, V); parameters and their names: `banks`.

    Rows (B > 1) know nothing of each other. cu_seqlens: documents of one packed row, apart in attention; the smear, the
    bigram and the key offset of a document's first token look at the last token of the one before, as upstream, unless
    the configuration isolates documents.
    """

    supports_packing = True

    attn: nn.Parameter
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

    def __init__(self, config: SpeedrunConfig):
        super().__init__()
        self.config = config
        for name, parameter in banks.new_parameters(config).items():
            self.register_parameter(name, parameter)
        self.rotary = RotaryState(config)
        banks.init_weights(self, config)

    def forward(self, ids_BT: Tensor, *, only_last: bool = False, cu_seqlens: Tensor | None = None) -> Tensor:
        """Capped logits (B, T, V) of the next token at every position; only_last gives (B, 1, V)."""
        x_BTD = self.hidden(ids_BT, cu_seqlens=cu_seqlens)
        return self.logits(x_BTD[:, -1:] if only_last else x_BTD)

    def hidden(self, ids_BT: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Vectors after the final norm, (B, T, D): what the head reads."""
        config = self.config
        scalars = Scalars.of(self.scalars, config.n_layer)
        row = self._row(ids_BT, cu_seqlens)
        e_BTD = F.embedding(ids_BT, self.embed)
        if config.smear:
            e_BTD = smear(e_BTD, self.smear_gate, scalars.smear, row.starts_BT)
        x_BTD = x0_BTD = norm(e_BTD)
        bigram_BTD = None
        if config.bigram_embeddings:
            bigram_BTD = F.embedding(bigram_ids(ids_BT, config.bigram_table, row.starts_BT), self.bigram_embed)
        x0_lambdas = self.x0_lambdas.unbind(0) if config.x0_lambdas else None
        attention, mlp = self._attention_weights(scalars), self.mlp.unbind(0)
        after: dict[int, Tensor] = {}
        for plan in config.layers:
            i = plan.index
            if config.skip and i == config.places.free:
                x_BTD = x_BTD + self._skip_gate(x0_BTD, scalars.skip) * after[config.places.skip_from]
            x_BTD = scalars.residual[i] * x_BTD
            if x0_lambdas is not None:
                x_BTD = x_BTD + x0_lambdas[i] * x0_BTD
            if bigram_BTD is not None:
                x_BTD = x_BTD + scalars.bigram[i] * bigram_BTD
            if plan.attention is not None:
                value_BTD = self._value_embedding(ids_BT, plan)
                x_BTD = x_BTD + attend(norm(x_BTD), attention[i], value_BTD, plan, row, config.n_head)
            fc_FD, proj_FD = mlp[i].unbind(0)
            x_BTD = x_BTD + relu2_mlp(norm(x_BTD), fc_FD, proj_FD)
            after[i] = x_BTD
        if config.backout:
            x_BTD = x_BTD - scalars.backout * after[config.places.backout]
        return norm(x_BTD)

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

    def num_parameters(self) -> dict[str, int]:
        """Parameters by group: attention, mlp, embeddings, head, value and bigram tables, gates, scalars; and total."""
        counts = dict.fromkeys(("attention", "mlp", "embed", "head", "value", "bigram", "gates", "scalars"), 0)
        for name, parameter in self.named_parameters():
            counts[GROUPS[name]] += parameter.numel()
        return {**counts, "total": sum(counts.values())}

    def _row(self, ids_BT: Tensor, cu_seqlens: Tensor | None) -> Row:
        B, T = ids_BT.shape
        if cu_seqlens is not None and B != 1:
            raise ValueError(f"packed documents (cu_seqlens) come in one row, got {B}")
        starts = self.config.isolate_documents and cu_seqlens is not None
        return Row(
            tables=self.rotary.tables(T),
            scale=self.rotary.scale,
            window_short=self.rotary.short if self.config.windows else None,
            window_long=self.rotary.long if self.config.windows else None,
            cu_seqlens=cu_seqlens,
            starts_BT=document_starts(cu_seqlens, T) if starts else None,
            backend=self.config.attention_backend,
        )

    def _attention_weights(self, scalars: Scalars) -> dict[int, AttentionWeights]:
        """By layer. Banks are unbound once: an index per layer would make a gradient of the whole bank for each."""
        D, config = self.config.n_embd, self.config
        slots = self.attn.unbind(0)
        gates = self.attn_gate_bank.unbind(0) if config.attention_gates else None
        value_gates = self.ve_gate_bank.unbind(0) if config.value_gates else None
        weights = {}
        for plan in config.layers:
            if plan.slot is None:
                continue
            qkv, out = slots[plan.slot].split((3 * D, D))
            weights[plan.index] = AttentionWeights(
                qkv=scalars.qkv[plan.index] * qkv,
                out=scalars.out[plan.index] * out,
                gate=None if gates is None else gates[plan.slot],
                value_gate=None if value_gates is None or plan.value is None else value_gates[plan.value],
            )
        return weights

    def _value_embedding(self, ids_BT: Tensor, plan: LayerPlan) -> Tensor | None:
        """(B, T, D)"""
        if plan.value is None:
            return None
        return F.embedding(ids_BT + plan.value * self.config.padded_vocab_size, self.value_embed)

    def _skip_gate(self, x0_BTD: Tensor, scale: Tensor) -> Tensor:
        """(B, T, 1): σ(skip) · 2σ(g · x0[:12]), at first 0.18."""
        gate_BT1 = gpt_kernels.linear(x0_BTD[..., :GATE_CHANNELS], self.skip_gate)
        return torch.sigmoid(scale) * 2 * torch.sigmoid(gate_BT1)


GROUPS = {
    "attn": "attention",
    "mlp": "mlp",
    "embed": "embed",
    "lm_head": "head",
    "value_embed": "value",
    "bigram_embed": "bigram",
    "attn_gate_bank": "gates",
    "ve_gate_bank": "gates",
    "smear_gate": "gates",
    "skip_gate": "gates",
    "x0_lambdas": "scalars",
    "scalars": "scalars",
}
"""Group of every parameter."""


def speedrun(vocab_size: int, context_length: int = 2048, **fields: Any) -> Speedrun:
    """Build a speedrun model from any fields of SpeedrunConfig."""
    return Speedrun(SpeedrunConfig.from_dict({"vocab_size": vocab_size, "context_length": context_length, **fields}))


speedrun.accepts = SpeedrunConfig  # ty: ignore[missing-attribute]  # the config checker reads it

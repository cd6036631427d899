"""Gates of a speedrun layer: of its heads, of its value embedding, of the skip connection.

Dimensions: B rows, T tokens, D width, H heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt_kernels import linear

from . import mudd
from .attention import Extras, head_gate
from .config import GATE_CHANNELS
from .plan import LayerPlan

if TYPE_CHECKING:
    from .model import Speedrun
    from .residual import Given


class HeadGates:
    """The gates of a forward pass: those of the banks, unbound once, or those made for every token (`dynamic`)."""

    dynamic: mudd.Gates | None = None

    def __init__(self, model: Speedrun):
        config = self.config = model.config
        self.model = model
        static = not config.mudd_gates
        self.heads = model.attn_gate_bank.unbind(0) if config.attention_gates and static else None
        self.values = model.ve_gate_bank.unbind(0) if config.value_gates else None
        self.xsa = model.xsa_alphas.unbind(0) if config.xsa and static else None

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
        if not self.config.value_gate_token:
            return h_BTD
        half = GATE_CHANNELS // 2
        return torch.cat((h_BTD[..., :half], value_BTD[..., :half]), -1)

    def _mixing(self, plan: LayerPlan, made: mudd.Gates) -> tuple[Tensor, Tensor] | None:
        return made.dynamic if plan.index == self.config.n_layer - 1 else None


def skip_gate(model: Speedrun, given: Given) -> Tensor:
    """(B, T, 1): σ(skip) · 2σ(g · x0[:12]), at first 0.18."""
    gate_BT1 = linear(given.x0_BTD[..., :GATE_CHANNELS], model.skip_gate)
    return torch.sigmoid(given.scalars.skip) * 2 * torch.sigmoid(gate_BT1)


def per_head(factor_BTH: Tensor, x_BTD: Tensor) -> Tensor:
    """x with every head's channels times its factor."""
    return (factor_BTH.unsqueeze(-1) * x_BTD.unflatten(-1, (factor_BTH.shape[-1], -1))).flatten(2)

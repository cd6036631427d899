"""How much of the DAG enters the hidden state.

Dimensions: B batch, Q positions, D model width.
"""

import torch
from torch import Tensor, nn

from gpt_core.models.linear import Linear

OPEN = -2.0
"""Bias of the gate at initialization: g ≈ 0.12, so that training begins near the plain GPT."""


class GateMixer(nn.Module):
    """h ← h + g·(d − λ·h) with g = σ(W[h; d] + b), one g per position.

    λ = 1 is the convex mix (1 − g)·h + g·d; λ = 0 adds.
    """

    def __init__(self, width: int, keep: float = 1.0):
        super().__init__()
        self.map = Linear(2 * width, 1, bias=True)
        self.keep = keep

    def forward(self, h_BQD: Tensor, d_BQD: Tensor, present_BQ: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mixed (B, Q, D) and the gate (B, Q, 1). Where `present` is False the gate is exactly 0."""
        gate = torch.sigmoid(self.map(torch.cat([h_BQD, d_BQD], -1)))
        if present_BQ is not None:
            gate = gate * present_BQ[..., None]
        return h_BQD + gate * (d_BQD - self.keep * h_BQD), gate

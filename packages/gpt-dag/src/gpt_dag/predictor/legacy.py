"""nanoGPT-DAG's own predictor of July 2025, kept to compare with: fixed slots, read from the mean over all positions.

One causal block, two parallel blocks (values, structure), a cross-attention between them; sign by tanh, logarithm of
the magnitude by 10·|tanh|, so that no number below 1 can be said; operators by a softmax over logits divided by 8.9.
B rows, T positions (padding is not masked), N = D + 1 numbers, D operators, H width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt_dag.executor import CLASSES, execute_stack
from gpt_dag.plans import IDENTITY, Plans

LOG_LIMIT = 10.0
TEMPERATURE = 20 / 5**0.5
SMALLEST = 1e-8


class Slots(NamedTuple):
    """The seed's interface to a plan."""

    sign: Tensor
    """(B, N) `initial_sgn`"""
    log: Tensor
    """(B, N) `initial_log`"""
    operation: Tensor
    """(B, D, 5) `operation_probs`"""


class LegacyPredictor(nn.Module):
    """forward(ids (B, T)) -> Slots."""

    def __init__(self, vocab_size: int, context_length: int, depth: int, n_embd: int = 32, n_head: int = 1):
        super().__init__()
        self.depth = depth
        self.token = nn.Embedding(vocab_size, n_embd)
        self.position = nn.Embedding(context_length, n_embd)
        self.block, self.values, self.structure = (LegacyBlock(n_embd, n_head) for _ in range(3))
        self.norm = nn.LayerNorm(n_embd)
        self.numbers = nn.Sequential(nn.Linear(n_embd, n_embd), nn.GELU(), nn.Linear(n_embd, 2 * (depth + 1)))
        self.cross = nn.MultiheadAttention(n_embd, n_head, batch_first=True)
        self.cross_norm = nn.LayerNorm(n_embd)
        self.operators = nn.Sequential(nn.Linear(n_embd, n_embd), nn.GELU(), nn.Linear(n_embd, CLASSES * depth))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, ids: Tensor) -> Slots:
        B, T = ids.shape
        x = self.token(ids) + self.position(torch.arange(T, device=ids.device))
        x = self.norm(self.block(x))
        values, structure = self.values(x), self.structure(x)
        sign, log = self.numbers(values).view(B, T, self.depth + 1, 2).unbind(-1)
        future = torch.ones(T, T, dtype=torch.bool, device=ids.device).triu(1)
        crossed, _ = self.cross(structure, values, values, attn_mask=future, need_weights=False)
        logits = self.operators(self.cross_norm(crossed)).view(B, T, self.depth, CLASSES).clamp(-40, 40)
        operation = (logits / TEMPERATURE).softmax(-1)
        return Slots(sign.tanh().mean(1), (log.tanh().abs() * LOG_LIMIT).mean(1), operation.mean(1))


class LegacyBlock(nn.Module):
    """A causal GPT-2 block."""

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.heads = n_head
        self.norm_1, self.norm_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.qkv, self.out = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.up, self.down = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        B, T, H = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(B, T, 3, self.heads, H // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(B, T, H))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


def legacy_slots(plans: Plans) -> Slots:
    """Targets as the original has them: 0 is positive, with a logarithm of ln 1e-8."""
    sign, log, operation = plans.slots()
    zero = sign == 0
    return Slots(torch.where(zero, 1.0, sign), log.masked_fill(zero, torch.tensor(SMALLEST).log().item()), operation)


def legacy_loss(read: Slots, wanted: Slots) -> Tensor:
    """Squared errors of sign (weight 1) and logarithm (10), negative log-likelihood of operators; per example."""
    sign = (read.sign - wanted.sign).square().sum()
    log = (read.log - wanted.log).square().sum()
    operation = -((read.operation + SMALLEST).log() * wanted.operation).sum()
    return (sign + 10 * log + operation) / len(read.sign)


class SlotScores(NamedTuple):
    """Shares, over all slots or all examples."""

    op: float
    """Operators, identity included."""
    op_real: float
    """Of those that are not identity."""
    full_op: float
    """Examples all of whose operators are right."""
    sign: float
    within_1_percent: float
    """Examples whose value, computed exactly from the hard operators, is within 1 % of the true one."""


def slot_scores(read: Slots, value: Tensor, plans: Plans) -> SlotScores:
    """The original's own metrics of what was read in place of `plans`; value: (B,) float64, NaN where there is none."""
    wanted = legacy_slots(plans)
    read = padded(read, wanted.log.shape[1])
    ops, true_ops = read.operation.argmax(-1), wanted.operation.argmax(-1)
    hit, real = ops == true_ops, true_ops != IDENTITY
    truth = torch.tensor([float(exact or 0) for exact in plans.fractions()], dtype=torch.float64)
    close = (value.cpu() - truth).abs() <= 0.01 * truth.abs()
    return SlotScores(
        op=float(hit.double().mean()),
        op_real=float(hit[real].double().mean()),
        full_op=float(hit.all(-1).double().mean()),
        sign=float(((read.sign >= 0) == (wanted.sign >= 0)).double().mean()),
        within_1_percent=float(close.double().mean()),
    )


def hard_values(slots: Slots) -> Tensor:
    """(B,) what the likeliest operators make of the numbers, in exact float64: kinder than the original's executor."""
    sign = torch.where(slots.sign >= 0, 1.0, -1.0).double()
    result = execute_stack(sign, slots.log.double(), slots.operation.argmax(-1)).result
    return torch.where(result.invalid, torch.nan, result.value)


def majority(plans: Plans) -> SlotScores:
    """What always saying "identity", "+" and the first number scores: the baseline of every column."""
    slots = legacy_slots(plans)
    identity = F.one_hot(torch.tensor(IDENTITY), CLASSES).to(slots.operation).expand_as(slots.operation)
    return slot_scores(Slots(torch.ones_like(slots.sign), slots.log, identity), plans.values()[:, 0], plans)


def padded(slots: Slots, numbers: int) -> Slots:
    """With identities and ones in the slots that are missing; what is too much is cut off."""
    missing = max(0, numbers - slots.log.shape[1])
    identity = F.one_hot(torch.tensor(IDENTITY), CLASSES).to(slots.operation)
    filling = identity.expand(len(slots.log), missing, CLASSES)
    return Slots(
        F.pad(slots.sign, (0, missing), value=1.0)[:, :numbers],
        F.pad(slots.log, (0, missing))[:, :numbers],
        torch.cat((slots.operation, filling), 1)[:, : numbers - 1],
    )

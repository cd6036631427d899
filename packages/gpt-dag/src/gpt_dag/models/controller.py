"""The controller: from hidden states to a small DAG of its own, supervised by nothing but the language-model loss.

nanoGPT-DAG's (June 2025), with two changes: values live as sign and ln|v| in float64, so that the executor is exact,
and every position may have a DAG of its own that sees only the tokens up to there.

Dimensions: B batch, T tokens, Q positions that see the DAG (all T, or the last one), D model width, S steps,
O operations, H heads, K head dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt_core.models import GPTConfig
from gpt_core.models.attention import SelfAttention
from gpt_core.models.block import BLOCKS
from gpt_core.models.linear import Linear
from gpt_dag.executor import execute

from .trace import OPERATIONS, Selection
from .value_embedding import ValueEmbedding


class Controller(nn.Module):
    """`steps` times: choose two nodes and an operation, execute, append the result as a node.

    Initial nodes are the tokens: embedding Block(h), value attention → (sign, ln|v|). Operands are chosen by queries
    from the running mean of Block(h), the operation likewise, all straight-through: hard forward, softmax backward.
    The new node's embedding is ½(e₁ + e₂) + W[e₁, e₂, φ(v₁), φ(v₂), op]. In the end the values of all nodes are pooled,
    and Block(pool) is what the DAG says. A node without a value (x / 0) counts as 0.
    """

    def __init__(self, config: GPTConfig, steps: int):
        super().__init__()
        block, D = BLOCKS[config.norm_position], config.n_embd
        self.steps = steps
        self.nodes, self.operand_context, self.operation_context = (block(config, 0) for _ in range(3))
        self.extract = SelfAttention(config, 0)
        self.value = Linear(D, 2, bias=True)
        self.step_embed = nn.Parameter(torch.zeros(steps, D))
        self.query = Linear(D, 2 * D, bias=False)
        self.key = Linear(D, D, bias=False)
        self.operation = Linear(D, len(OPERATIONS), bias=True)
        self.embed_value = ValueEmbedding(D)
        self.combine = Linear(4 * D + len(OPERATIONS), D, bias=True)
        self.pool, self.post = Pool(config), block(config, 0)

    def forward(self, h_BTD: Tensor, last: bool) -> tuple[Tensor, Selection]:
        """What the DAG of every position says, (B, Q, D), and how it came about; last: Q = 1, the last position."""
        nodes_BTD = self.nodes(h_BTD)
        operand_BQD = _running_mean(self.operand_context(h_BTD), last)
        operation_BQD = _running_mean(self.operation_context(h_BTD), last)
        sign_BT, log_BT = self._values(nodes_BTD)
        keys_BTD, T = self.key(nodes_BTD), h_BTD.shape[1]
        visible_QT = torch.ones(T, T, dtype=torch.bool, device=h_BTD.device).tril()
        visible_QT = visible_QT[-1:] if last else visible_QT

        embeds: list[Tensor] = []  # of the steps so far, (B, Q, D) each
        keys: list[Tensor] = []
        made = _Values([], [], [])
        op_probs, op_logits, chosen = [], [], ([], [])
        for s in range(self.steps):
            queries = self.query(operand_BQD + self.step_embed[s]).chunk(2, -1)
            operands, values = [], []
            for q_BQD, choices in zip(queries, chosen, strict=True):
                probs_BQN = self._choose(q_BQD, keys_BTD, keys, visible_QT)
                choices.append(probs_BQN)
                pick_BQN = straight_through(probs_BQN)
                operands.append(_pick(pick_BQN, nodes_BTD, embeds))
                values.append((_pick(pick_BQN, sign_BT, made.sign), _pick(pick_BQN, log_BT, made.log)))
            logits_BQO = self.operation(operation_BQD + self.step_embed[s])
            probs_BQO = logits_BQO.float().softmax(-1)
            sign_BQ2, log_BQ2 = (torch.stack(pair, -1) for pair in zip(*values, strict=True))
            made.append(_operate(probs_BQO, sign_BQ2, log_BQ2))
            one_hot_BQO = straight_through(probs_BQO).to(h_BTD.dtype)
            told = self.embed_value(sign_BQ2, log_BQ2).flatten(-2)
            combined = self.combine(torch.cat([*operands, told, one_hot_BQO], -1))
            embeds.append(sum(operands) / 2 + combined)
            keys.append(self.key(embeds[-1]))
            op_probs.append(probs_BQO)
            op_logits.append(logits_BQO)

        steps = made.stacked()
        pooled_BQD = self.pool(self.embed_value(sign_BT, log_BT), self.embed_value(*steps), last)
        return self.post(pooled_BQD), Selection(*steps, op_probs, op_logits, chosen, sign_BT, log_BT)

    def _values(self, nodes_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Sign (straight-through) and ln|v| of every token, (B, T) float64."""
        raw_BT2 = self.value(self.extract(nodes_BTD)).double()
        soft = raw_BT2[..., 0].tanh()
        hard = torch.where(soft >= 0, 1.0, -1.0).double()
        return hard + (soft - soft.detach()), raw_BT2[..., 1]

    def _choose(self, q_BQD: Tensor, keys_BTD: Tensor, steps: list[Tensor], visible_QT: Tensor) -> Tensor:
        """Probability of every node, (B, Q, T+s): of the tokens up to this position, then of its own steps."""
        scale = q_BQD.shape[-1] ** -0.5
        scores = (q_BQD @ keys_BTD.mT).float().masked_fill(~visible_QT, -torch.inf)
        own = [(q_BQD * key).sum(-1, keepdim=True).float() for key in steps]
        return (torch.cat([scores, *own], -1) * scale).softmax(-1)


class Pool(nn.Module):
    """Multi-head attention among the values of a DAG, then their mean: one vector per position.

    For the last position this is nanoGPT-DAG's, every node asking every node. Where each position has nodes of its own
    that would cost T³; there the mean of the nodes asks, once.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        D = config.n_embd
        self.heads = config.n_head
        self.qkv = Linear(D, 3 * D, bias=False)
        self.out = Linear(D, D, bias=False)

    def forward(self, tokens_BTD: Tensor, steps_BQSD: Tensor, last: bool) -> Tensor:
        """(B, Q, D) from the values of the tokens and of the steps of each position."""
        if last:
            nodes_BND = torch.cat([tokens_BTD, steps_BQSD[:, 0]], 1)
            q, k, v = (self._heads(x).transpose(1, 2) for x in self.qkv(nodes_BND).chunk(3, -1))
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)).mean(1, keepdim=True)
        T, S = tokens_BTD.shape[1], steps_BQSD.shape[2]
        count_T1 = torch.arange(1, T + 1, device=tokens_BTD.device)[:, None]
        mean_BQD = (tokens_BTD.cumsum(1) + steps_BQSD.sum(2)) / (count_T1 + S)
        q_BQHK = self._heads(F.linear(mean_BQD, self.qkv.weight.chunk(3)[0]))
        _, k_BTHK, v_BTHK = (self._heads(x) for x in self.qkv(tokens_BTD).chunk(3, -1))
        _, k_BQSHK, v_BQSHK = (self._heads(x) for x in self.qkv(steps_BQSD).chunk(3, -1))
        scores = torch.einsum("bqhk,bthk->bhqt", q_BQHK, k_BTHK)
        hidden = torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)
        own = torch.einsum("bqhk,bqshk->bhqs", q_BQHK, k_BQSHK)
        weights = torch.cat([scores.masked_fill(hidden, -torch.inf), own], -1) * q_BQHK.shape[-1] ** -0.5
        shared, own = weights.float().softmax(-1).to(v_BTHK.dtype).split((T, S), -1)
        pooled = torch.einsum("bhqt,bthk->bqhk", shared, v_BTHK) + torch.einsum("bhqs,bqshk->bqhk", own, v_BQSHK)
        return self.out(pooled.flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., H, K)"""
        return x.unflatten(-1, (self.heads, -1))


class _Values(NamedTuple):
    """Values of the steps so far, (B, Q) each."""

    sign: list[Tensor]
    log: list[Tensor]
    valid: list[Tensor]

    def append(self, value: tuple[Tensor, Tensor, Tensor]) -> None:
        for column, field in zip(self, value, strict=True):
            column.append(field)

    def stacked(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, Q, S) each."""
        return torch.stack(self.sign, -1), torch.stack(self.log, -1), torch.stack(self.valid, -1)


def straight_through(probs: Tensor) -> Tensor:
    """One-hot of the most probable entry of the last dimension, exactly; its gradient is that of the probabilities
    (Bengio et al. 2013, arXiv:1308.3432)."""
    hard = F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs.dtype)
    return hard + (probs - probs.detach())


def _operate(probs_BQO: Tensor, sign_BQ2: Tensor, log_BQ2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable operation on two values, by the executor: sign, ln|v| and whether there is a value, (B, Q)."""
    logits_BQ1O = probs_BQO.clamp(min=1e-30).log()[..., None, :]
    left = torch.zeros(logits_BQ1O.shape[:-1], dtype=torch.int64, device=probs_BQO.device)
    result = execute(sign_BQ2, log_BQ2, logits_BQ1O, left, left + 1).result
    return result.sign, result.log, ~result.invalid


def _pick(one_hot_BQN: Tensor, tokens_BT: Tensor, steps: list[Tensor]) -> Tensor:
    """What a one-hot over the tokens and a position's own steps points to: (B, Q), or (B, Q, D) of vectors.

    tokens: (B, T) or (B, T, D); steps: one (B, Q) or (B, Q, D) per step so far.
    """
    T, vectors = tokens_BT.shape[1], tokens_BT.dim() == 3
    shared_BQT, own = one_hot_BQN[..., :T].to(tokens_BT.dtype), one_hot_BQN[..., T:].unbind(-1)
    picked = shared_BQT @ (tokens_BT if vectors else tokens_BT[..., None])
    picked = picked if vectors else picked[..., 0]
    for weight_BQ, step in zip(own, steps, strict=True):
        picked = picked + (weight_BQ[..., None] if vectors else weight_BQ).to(step.dtype) * step
    return picked


def _running_mean(x_BTD: Tensor, last: bool) -> Tensor:
    """(B, Q, D): position t gets the mean of the positions up to t."""
    if last:
        return x_BTD.mean(1, keepdim=True)
    count_T1 = torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device)[:, None]
    return x_BTD.cumsum(1) / count_T1

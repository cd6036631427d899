"""Figures of one forward pass of the DAG, as 0-d tensors on its device: nothing here waits for a GPU.

Dimensions: B batch, Q positions, S steps, O operations, N nodes, D model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .trace import OPERATIONS, PlanValues, Selection, Trace

ALIASES = {"subtract": "sub", "multiply": "mul", "divide": "div", "identity": "id"}
"""Second spellings that earlier logs used."""
CLOSED, OPEN = 0.01, 0.5
"""A gate below the first is closed, above the second open."""
MOST_NODES = 32
"""Of which selection probabilities are told."""


def gate_statistics(gate_BQ1: Tensor) -> dict[str, Tensor]:
    gate = gate_BQ1.detach().float()
    return {
        "gate/mean": gate.mean(),
        "gate/std": gate.std(correction=0),
        "gate/min": gate.min(),
        "gate/max": gate.max(),
        "gate/close_to_zero_ratio": (gate < CLOSED).float().mean(),
        "gate/open_ratio": (gate > OPEN).float().mean(),
    }


def norm_statistics(trace: Trace) -> dict[str, Tensor]:
    """Mean Euclidean norms over positions, under both generations of names."""
    hidden, dag, fused = (x.detach().float().norm(dim=-1).mean() for x in (trace.hidden, trace.dag, trace.fused))
    values = node_values(trace.nodes)
    return {
        "norm/hidden": hidden,
        "norm/original_hidden": hidden,
        "norm/dag_sem": dag,
        "norm/dag_hidden": dag,
        "norm/fused": fused,
        "norm/dag_to_orig_ratio": dag / hidden.clamp(min=1e-12),
        "norm/final_values": (values[..., -1].norm() / math.sqrt(values[..., -1].numel())).float(),
        "norm/last_gate": trace.gate.detach().float()[:, -1].mean(),
    }


def node_values(nodes: Selection | PlanValues) -> Tensor:
    """(B, Q, N) float64: sign · e^log; 0 where there is no value."""
    return torch.where(nodes.valid, nodes.sign * nodes.log.exp(), 0.0).detach()


def node_statistics(nodes: Selection | PlanValues) -> dict[str, Tensor]:
    """Real values, negative ones negative: of each of the controller's steps, or of a plan's result."""
    values, valid = node_values(nodes), nodes.valid
    named = {str(i): i for i in range(values.shape[-1])} if isinstance(nodes, Selection) else {"result": -1}
    figures = {"node/valid_ratio": valid[..., -1].float().mean()}
    for name, i in named.items():
        value, has = values[..., i].flatten(), valid[..., i].flatten()
        count = has.sum()
        figures[f"node/{name}/mean"] = (value / count.clamp(min=1)).sum()  # divided first: a sum might overflow
        ordered = torch.where(has, value, torch.inf).sort().values
        for label, share in (("p5", 0.05), ("median", 0.5), ("p95", 0.95)):
            place = ((count - 1).clamp(min=0) * share).round().long()
            figures[f"node/{name}/{label}"] = torch.where(count > 0, ordered.gather(0, place[None])[0], 0.0)
    return figures


def operation_statistics(selection: Selection) -> dict[str, Tensor]:
    """How the controller chooses: probabilities, and how much of their entropy is the choice of single tokens.

    diversity = H(mean p) / ln O; sharpness = 1 − mean H(p) / ln O; mutual information = (H(mean p) − mean H(p)) / ln O.
    """
    probs = torch.stack(selection.op_probs, 2).detach().float()  # (B, Q, S, O)
    mean = probs.mean((0, 1, 2))
    most = math.log(len(OPERATIONS))
    diversity, single = _entropy(mean) / most, _entropy(probs).mean() / most
    figures = {"op_diversity": diversity, "op_sharpness": 1 - single, "op_mutual_info": diversity - single}
    figures |= per_operation("op_probs", mean)
    figures["op_logits_mean"] = torch.stack(selection.op_logits).detach().float().mean()
    for s in range(probs.shape[2]):
        figures[f"dag_entropy/step{s}_op"] = _entropy(probs[:, :, s]).mean()
    for number, chosen in enumerate(selection.operand_probs, start=1):
        for s, choice in enumerate(chosen):
            figures[f"dag_entropy/step{s}_operand{number}"] = _entropy(choice.detach().float()).mean()
        last = chosen[-1].detach().float()[:, -1].mean(0)  # of the last step, at the last position
        for i in range(min(len(last), MOST_NODES)):
            figures[f"dag_attn/operand{number}_node{i}"] = last[i]
    return figures


def per_operation(group: str, values_O: Tensor) -> dict[str, Tensor]:
    """One figure per operation, under both of its names."""
    figures = {}
    for name, value in zip(OPERATIONS, values_O, strict=True):
        figures[f"{group}/{name}"] = value
        if name in ALIASES:
            figures[f"{group}/{ALIASES[name]}"] = value
    return figures


def _entropy(probs: Tensor) -> Tensor:
    """(..., n) -> (...) in nats."""
    return -(probs * probs.clamp(min=1e-30).log()).sum(-1)

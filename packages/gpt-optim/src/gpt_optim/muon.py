"""Muon for hidden matrices and AdamW for the rest, in one optimizer.

Shape suffixes: K matrices in a stack, M rows, N columns.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as fused_adamw

from gpt_optim.groups import Rule, default_rules, exactly, param_groups
from gpt_optim.orthogonalize import newton_schulz, polar_express

ORTHOGONALIZERS = {"newton_schulz": newton_schulz, "polar_express": polar_express}
SCALES: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
QKV = r"(^|\.)(qkv|c_attn)\.weight$"


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024), with decoupled weight decay.

    A group's `kind` chooses its rule: "muon" (default) or "adamw" (torch's fused kernel, `betas` and `eps`).
    `split`: the rows of each matrix fused in a weight, e.g. (d, d, d) for queries, keys and values; orthogonalised
    apart. `scale`: "original" is √max(1, rows/columns), "match_rms_adamw" is 0.2·√max(rows, columns), which suits
    AdamW's learning rates (arXiv:2502.16982). Matrices of equal shape are orthogonalised in one stack.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        scale: Literal["original", "match_rms_adamw"] = "original",
        split: Sequence[int] | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        orthogonalize: Callable[[Tensor], Tensor] = newton_schulz,
    ):
        options: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        options |= {"scale": scale, "split": split, "betas": betas, "eps": eps}
        # "fused" tells torch, when it loads a state, to put the step counts on the parameters' device.
        super().__init__(params, {"kind": "muon", "fused": True, **options})
        self.orthogonalize = orthogonalize

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            if group["kind"] == "adamw":
                self._adamw(group, params)
            else:
                self._muon(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grads = [p.grad for p in params if p.grad is not None]
        averages = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(averages, grads, 1.0 - group["momentum"])
        directions = torch._foreach_lerp(grads, averages, group["momentum"]) if group["nesterov"] else averages
        if group["weight_decay"]:
            torch._foreach_mul_(params, 1.0 - group["lr"] * group["weight_decay"])
        for weights, blocks in _equal_shapes(params, directions, group["split"]):
            update_KMN = self.orthogonalize(torch.stack(blocks))
            rate = group["lr"] * SCALES[group["scale"]](*update_KMN.shape[-2:])
            torch._foreach_add_(weights, list(update_KMN.unbind()), alpha=-rate)

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                step = torch.zeros((), dtype=torch.float32, device=p.device)
                moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                self.state[p].update(step=step, **moments)
        states = [self.state[p] for p in params]
        fused_adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def muon(
    model: nn.Module,
    learning_rate: float = 0.02,
    adamw_learning_rate: float = 6e-4,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    scale: Literal["original", "match_rms_adamw"] = "original",
    orthogonalizer: Literal["newton_schulz", "polar_express"] = "newton_schulz",
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    qkv: str = QKV,
) -> Muon:
    """Muon on the hidden matrices of `model`, AdamW on embeddings, head and vectors (`default_rules`).

    Weights whose name matches `qkv` and that have more rows than columns hold queries (as many rows as columns), keys
    and values, in this order; each is orthogonalised by itself.
    """
    for name, rate in (("learning_rate", learning_rate), ("adamw_learning_rate", adamw_learning_rate)):
        if rate <= 0:
            raise ValueError(f"{name} must be positive, got {rate}")
    if orthogonalizer not in ORTHOGONALIZERS:
        raise ValueError(f"orthogonalizer must be one of {', '.join(ORTHOGONALIZERS)}, got {orthogonalizer!r}")
    rules = default_rules(model, adamw={"lr": adamw_learning_rate})
    if rules[0].options["kind"] != "muon":
        raise ValueError("the model has no hidden matrix for Muon (all are embeddings or a head): use adamw")
    return Muon(
        param_groups(model, _hidden_rules(model, rules[0], qkv) + rules[1:]),
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        scale=scale,
        betas=(beta1, beta2),
        eps=eps,
        orthogonalize=ORTHOGONALIZERS[orthogonalizer],
    )


def _hidden_rules(model: nn.Module, hidden: Rule, qkv: str) -> list[Rule]:
    """The `hidden` rule, after one for each shape of fused queries, keys and values among its matrices."""
    by_split: dict[tuple[int, ...] | None, list[str]] = {}
    for name, p in model.named_parameters():
        if not re.search(hidden.pattern, name):
            continue
        split = None
        if re.search(qkv, name) and p.size(0) > p.size(1):
            key_rows, odd = divmod(p.size(0) - p.size(1), 2)
            if odd:
                raise ValueError(f"{name} of shape {tuple(p.shape)} is no stack of queries, keys, values: narrow qkv")
            split = (p.size(1), key_rows, key_rows)
        by_split.setdefault(split, []).append(name)
    return [Rule(exactly(names), {**hidden.options, "split": split}) for split, names in by_split.items()]


def _equal_shapes(
    weights: list[Tensor], directions: Sequence[Tensor], split: Sequence[int] | None
) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
    """Views of the weights' blocks and their directions, gathered by shape and device."""
    stacks: dict[Any, tuple[list[Tensor], list[Tensor]]] = {}
    for weight, direction in zip(weights, directions, strict=True):
        rows = list(split) if split else [weight.size(-2)]
        for block, part in zip(weight.split(rows, dim=-2), direction.split(rows, dim=-2), strict=True):
            stack = stacks.setdefault((block.shape, block.dtype, block.device), ([], []))
            stack[0].append(block)
            stack[1].append(part)
    return stacks.values()


def _check(group: dict[str, Any]) -> None:
    if group["kind"] not in ("muon", "adamw"):
        raise ValueError(f"a group's kind must be 'muon' or 'adamw', got {group['kind']!r}")
    if group["lr"] < 0 or group["weight_decay"] < 0:
        raise ValueError(f"lr and weight_decay must not be negative, got {group['lr']}, {group['weight_decay']}")
    if group["kind"] == "adamw":
        return
    if group["scale"] not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {group['scale']!r}")
    if not 0.0 <= group["momentum"] < 1.0:
        raise ValueError(f"momentum must lie in [0, 1), got {group['momentum']}")
    for p in group["params"]:
        if p.dim() < 2:
            raise ValueError(f"Muon takes matrices, got a parameter of shape {tuple(p.shape)}: use kind='adamw' for it")
        if group["split"] and sum(group["split"]) != p.size(-2):
            raise ValueError(f"split {tuple(group['split'])} must add up to the rows of every matrix, got {p.size(-2)}")

"""Optimizers for a whole model from a few numbers, as configurations name them."""

from __future__ import annotations

from typing import Any, Literal

import torch.distributed as dist
from torch import nn

from gpt_optim.groups import param_groups
from gpt_optim.muon import MuonAdamW
from gpt_optim.orthogonalize import newton_schulz, polar_express
from gpt_optim.rules import QKV, default_rules

ORTHOGONALIZERS = {"newton_schulz": newton_schulz, "polar_express": polar_express}


def sharding(zero: int, process_group: dist.ProcessGroup | None) -> dict[str, Any]:
    """`MuonAdamW`'s arguments for ZeRO stage `zero` over `process_group`; 0 shares nothing."""
    if zero not in (0, 1, 2):
        raise ValueError(f"zero must be 0, 1 (behind DDP) or 2 (gradients are averaged by the optimizer), got {zero!r}")
    if not zero:
        return {}
    return {"process_group": process_group, "gradients": "averaged" if zero == 1 else "local"}


def muon(
    model: nn.Module,
    learning_rate: float = 0.02,
    adamw_learning_rate: float = 6e-4,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    cautious: bool = False,
    scale: Literal["original", "match_rms_adamw", "spectral_unclamped"] = "original",
    orthogonalizer: Literal["newton_schulz", "polar_express"] = "newton_schulz",
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    qkv: str = QKV,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
    kind: Literal["muon", "normuon"] = "muon",
    normuon_beta2: float = 0.95,
) -> MuonAdamW:
    """Muon on the hidden matrices of `model`, AdamW on embeddings, head and vectors (`default_rules`).

    Weights whose name matches `qkv` and that have more rows than columns hold queries (as many rows as columns), keys
    and values, in this order; each is orthogonalised by itself. beta1, beta2, eps are AdamW's.
    """
    for name, rate in (("learning_rate", learning_rate), ("adamw_learning_rate", adamw_learning_rate)):
        if rate <= 0:
            raise ValueError(f"{name} must be positive, got {rate}")
    if orthogonalizer not in ORTHOGONALIZERS:
        raise ValueError(f"orthogonalizer must be one of {', '.join(ORTHOGONALIZERS)}, got {orthogonalizer!r}")
    rules = default_rules(model, muon={"kind": kind}, adamw={"lr": adamw_learning_rate, "cautious": False}, qkv=qkv)
    if all(rule.options["kind"] == "adamw" for rule in rules):
        raise ValueError("the model has no hidden matrix for Muon (all are embeddings or a head): use adamw")
    return MuonAdamW(
        param_groups(model, rules),
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        cautious=cautious,
        scale=scale,
        beta2=normuon_beta2,
        betas=(beta1, beta2),
        eps=eps,
        orthogonalize=ORTHOGONALIZERS[orthogonalizer],
        compile=compile,
        **sharding(zero, process_group),
    )


def normuon(
    model: nn.Module,
    learning_rate: float = 0.02,
    adamw_learning_rate: float = 6e-4,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    cautious: bool = True,
    scale: Literal["original", "match_rms_adamw", "spectral_unclamped"] = "original",
    orthogonalizer: Literal["newton_schulz", "polar_express"] = "polar_express",
    normuon_beta2: float = 0.95,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    qkv: str = QKV,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
) -> MuonAdamW:
    """`muon` with NorMuon's equal row norms; `normuon_beta2` is that of its row averages."""
    return muon(
        model,
        learning_rate,
        adamw_learning_rate,
        momentum,
        weight_decay,
        cautious,
        scale,
        orthogonalizer,
        beta1,
        beta2,
        eps,
        qkv,
        compile,
        zero,
        process_group,
        kind="normuon",
        normuon_beta2=normuon_beta2,
    )

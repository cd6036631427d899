"""Optimizers for a whole model from a few numbers, as configurations name them."""

from __future__ import annotations

from typing import Any, Literal

import torch.distributed as dist
from torch import nn

from gpt_kernels import newton_schulz, polar_express
from gpt_optim.groups import param_groups
from gpt_optim.muon import MuonAdamW
from gpt_optim.rules import QKV, default_rules
from gpt_optim.units import Orthogonalize

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
    embedding_learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    vector_learning_rate: float | None = None,
    qkv: str = QKV,
    clip_muon: bool = False,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
) -> MuonAdamW:
    """Muon on the hidden matrices of `model`, AdamW on embeddings, head and vectors (`default_rules`).

    These have `adamw_learning_rate` unless given one of their own; beta1, beta2, eps are AdamW's. Weights whose name
    matches `qkv` and that have more rows than columns hold queries (as many rows as columns), keys and values, in this
    order; each is orthogonalised by itself. clip_muon: clipping scales the matrices' gradients too.
    zero: ZeRO stage over `process_group`; 0 shares nothing.
    """
    rates = (adamw_learning_rate, embedding_learning_rate, head_learning_rate, vector_learning_rate)
    groups = _groups(model, {"kind": "muon"}, learning_rate, rates, qkv)
    return MuonAdamW(
        groups,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        cautious=cautious,
        scale=scale,
        betas=(beta1, beta2),
        eps=eps,
        orthogonalize=_orthogonalize(orthogonalizer),
        clip_muon=clip_muon,
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
    embedding_learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    vector_learning_rate: float | None = None,
    qkv: str = QKV,
    clip_muon: bool = False,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
) -> MuonAdamW:
    """`muon` with NorMuon's equal row norms; `normuon_beta2` is that of its row averages."""
    rates = (adamw_learning_rate, embedding_learning_rate, head_learning_rate, vector_learning_rate)
    groups = _groups(model, {"kind": "normuon"}, learning_rate, rates, qkv)
    return MuonAdamW(
        groups,
        lr=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        cautious=cautious,
        scale=scale,
        beta2=normuon_beta2,
        betas=(beta1, beta2),
        eps=eps,
        orthogonalize=_orthogonalize(orthogonalizer),
        clip_muon=clip_muon,
        compile=compile,
        **sharding(zero, process_group),
    )


def _groups(
    model: nn.Module, matrices: dict[str, Any], rate: float, rates: tuple[float | None, ...], qkv: str
) -> list[dict[str, Any]]:
    """rates: AdamW's, then those of embeddings, head and vectors, or None for AdamW's."""
    wrong = [r for r in (rate, *rates) if r is not None and not r > 0]
    if wrong:
        raise ValueError(f"learning rates must be positive, got {wrong[0]}")
    common, *own = rates
    embedding, head, vectors = ({} if r is None else {"lr": r} for r in own)
    adamw = {"lr": common, "cautious": False}
    rules = default_rules(model, matrices, adamw, embedding, head, vectors, qkv_names=qkv)
    if all(rule.options["kind"] == "adamw" for rule in rules):
        raise ValueError("the model has no hidden matrix for Muon (all are embeddings or a head): use adamw")
    return param_groups(model, rules)


def _orthogonalize(name: str) -> Orthogonalize:
    if name not in ORTHOGONALIZERS:
        raise ValueError(f"orthogonalizer must be one of {', '.join(ORTHOGONALIZERS)}, got {name!r}")
    return ORTHOGONALIZERS[name]

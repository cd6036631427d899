"""The optimizer of the GPT speedrun (modded-nanogpt, record 68 and later): NorMuon on banks of matrices, and Adam.

Per matrix X of shape (R, C), every step, with eta = 0.023 · s · max(1, R/C)^½ · f, where s is the schedule's factor and
f is 2 for the MLP's output matrices:

    M <- mu M + (1 - mu) G;   U = polar((1 - mu) G + mu M), rows of equal mean square over time, norm kept
    X <- X - eta (1.2 · 0.023 · s) X [X U >= 0] - eta U

Per other tensor, at every second step (gradients of both add up), with a = 0.008 · s · (its factor in `LABELS`):

    p <- p - a √(1 - b2ᵗ)/(1 - b1ᵗ) m / (√v + 1e-10) - a² (0.005 · its decay factor) p [p m > 0]

The embedding is the head's transpose until `untie_at`, and has the head's moments from there on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch.distributed as dist
from torch import Tensor, nn

from gpt_optim.factories import ORTHOGONALIZERS, sharding
from gpt_optim.groups import clean_names
from gpt_optim.muon import MuonAdamW
from gpt_optim.ties import Tie, due_at


@dataclass(frozen=True)
class AdamLabel:
    """What sets one tensor apart from the others that Adam updates."""

    rate: float = 1.0
    """Factor of Adam's learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    decay: float = 1.0
    """Factor of Adam's weight decay."""


@dataclass(frozen=True)
class BankLabel:
    """What sets one bank of matrices apart."""

    square: bool = False
    """Its rows are square matrices, one below the other (queries, keys, values, output)."""
    rate_factors: tuple[float, ...] = (1.0,)
    """Factors of the rates of its matrices, in turn."""


SMALL, LAMBDAS, TABLE, TIED = (0.9, 0.99), (0.9, 0.95), (0.75, 0.95), (0.5, 0.95)

LABELS: Mapping[str, AdamLabel | BankLabel] = {
    "attn": BankLabel(square=True),
    "qk": BankLabel(),  # record 80: queries and keys, each pair of heads a matrix
    "vo": BankLabel(square=True),
    "mlp": BankLabel(rate_factors=(1.0, 2.0)),
    "scalars": AdamLabel(5.0, SMALL, 0.0),
    "value_embed": AdamLabel(75.0, TABLE, 5.0),
    "bigram_embed": AdamLabel(75.0, TABLE, 5.0),
    "smear_gate": AdamLabel(0.01, SMALL, 0.0),
    "skip_gate": AdamLabel(0.05, SMALL, 0.0),
    "attn_gate_bank": AdamLabel(1.0, SMALL),
    "ve_gate_bank": AdamLabel(1.0, SMALL),
    "x0_lambdas": AdamLabel(5.0, (0.65, 0.95), 0.0),
    "resid_lambdas": AdamLabel(5.0, LAMBDAS, 0.0),  # record 73
    "post_lambdas": AdamLabel(1.0, LAMBDAS, 0.0),
    "bigram_lambdas": AdamLabel(1.0, LAMBDAS, 0.0),
    "mudd_w1": AdamLabel(0.25, SMALL),  # record 81
    "mudd_w2": AdamLabel(0.25, SMALL),
    "mudd_b2": AdamLabel(0.25, SMALL, 0.0),
    "xsa_alphas": AdamLabel(1.0, LAMBDAS, 0.0),  # record 82
    "mudd_gate_w1": AdamLabel(0.1, SMALL),  # record 85
    "mudd_gate_w2": AdamLabel(0.1, SMALL),
    "mudd_gate_b2": AdamLabel(0.1, SMALL, 0.0),
    "mudd_gate_scale": AdamLabel(0.1, SMALL, 0.0),
    "lm_head": AdamLabel(1.0, TIED, 150.0),
    "embed": AdamLabel(1.0, TIED, 150.0),
}
"""Every tensor's rule, in the order in which gradients start to be averaged: the largest first, what is needed last
last."""

BESIDE_RESIDUAL_LAMBDAS = {"x0_lambdas": AdamLabel(1.0, LAMBDAS, 0.0)}
"""Rules that replace those of `LABELS` in models with `resid_lambdas`: record 73 changed both at once."""

LAST = ("lm_head", "embed", "attn", "qk", "vo", "mlp")
"""The order of work ends with these: head and embedding, then matrices, whose long work hides the others' transport."""

TABLES = ("value_embed", "bigram_embed")
"""Before them come these, and everything small before that."""


def speedrun(
    model: nn.Module,
    learning_rate: float = 0.023,
    adam_learning_rate: float = 0.008,
    momentum: float = 0.95,
    normuon_beta2: float = 0.95,
    weight_decay: float = 1.2,
    adam_weight_decay: float = 0.005,
    eps: float = 1e-10,
    normuon: bool = True,
    cautious: bool = True,
    orthogonalizer: Literal["newton_schulz", "polar_express"] = "polar_express",
    adam_every: int = 2,
    tie: bool = True,
    untie_at: int | None = None,
    mantissa: bool = True,
    sparse_bigrams: bool = False,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
) -> MuonAdamW:
    """The speedrun's optimizer for a model whose parameters have the speedrun's names (`LABELS`).

    learning_rate, momentum, normuon_beta2, weight_decay: of the matrices; the adam_ ones of all other tensors. Decay is
    multiplied with the square of the rate. Switches: normuon (off: Muon), cautious decay, orthogonalizer, adam_every
    (1: every step), mantissa (16 more bits of bfloat16 matrices), sparse_bigrams (record 71: between processes only
    those rows of bigram gradients travel that are not zero).
    tie: `embed` follows `lm_head`, transposed, up to and with the step `untie_at`, or the first one from there on at
    which Adam is due; None never parts them. zero: ZeRO stage over `process_group`; 0 shares nothing.

    ValueError: a parameter without a label, or an option out of range.
    """
    if orthogonalizer not in ORTHOGONALIZERS:
        raise ValueError(f"orthogonalizer must be one of {', '.join(ORTHOGONALIZERS)}, got {orthogonalizer!r}")
    parameters = labelled(model)
    matrices = {"kind": "normuon" if normuon else "muon", "lr": learning_rate, "weight_decay": weight_decay}
    matrices |= {"momentum": momentum, "beta2": normuon_beta2, "scale_decay": True, "low_bits": mantissa}
    adam = {"kind": "adamw", "eps": eps, "raw_eps": True, "every": adam_every}
    groups = []
    rules = {**LABELS, **(BESIDE_RESIDUAL_LAMBDAS if "resid_lambdas" in parameters else {})}
    for label, (name, parameter) in parameters.items():
        rule = rules[label]
        if isinstance(rule, BankLabel):
            options = matrices | {"rate_factors": rule.rate_factors}
            if rule.square and parameter.size(-2) != parameter.size(-1):
                options["matrix_rows"] = parameter.size(-1)
        else:
            rates = {"lr": adam_learning_rate * rule.rate, "weight_decay": adam_weight_decay * rule.decay}
            options = adam | rates | {"betas": rule.betas, "sparse": sparse_bigrams and label == "bigram_embed"}
        groups.append({**options, "name": label, "params": [parameter], "param_names": [name]})
    ties = []
    if tie and parameters.keys() >= {"embed", "lm_head"}:
        until = None if untie_at is None else due_at(untie_at, adam_every)
        ties.append(Tie(parameters["lm_head"][1], parameters["embed"][1], transposed=True, until=until))
    return MuonAdamW(
        groups,
        cautious=cautious,
        squared_decay=True,
        narrow=next(iter(parameters.values()))[1].is_cuda,
        orthogonalize=ORTHOGONALIZERS[orthogonalizer],
        compile=compile,
        ties=ties,
        reduce_order=list(parameters),
        work_order=sorted(parameters, key=_turn),
        **sharding(zero, process_group),
    )


def labelled(model: nn.Module) -> dict[str, tuple[str, Tensor]]:
    """Label -> (name, parameter) of every trainable parameter, in the order of `LABELS`.

    ValueError: a parameter that no label fits, or two that one label fits.
    """
    found: dict[str, tuple[str, Tensor]] = {}
    for parameter, (name, *_) in clean_names(model).items():
        label = re.sub(r"\.weight$", "", name).rpartition(".")[2].strip("_")
        label = label if label in LABELS else re.sub(r"_bank$|s$", "", label)
        if label not in LABELS:
            raise ValueError(f"the speedrun has no rule for {name}; it knows {', '.join(LABELS)}")
        if label in found:
            raise ValueError(f"{name} and {found[label][0]} are both {label}: the speedrun has one of each")
        found[label] = (name, parameter)
    return {label: found[label] for label in LABELS if label in found}


def _turn(label: str) -> tuple[int, int]:
    """Where the work on a label stands: small tensors, tables, then `LAST`."""
    place = 2 + LAST.index(label) if label in LAST else int(label in TABLES)
    return place, list(LABELS).index(label)

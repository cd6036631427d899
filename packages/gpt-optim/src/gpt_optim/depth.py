"""The optimizer of models that are sized by depth, with nanochat's groups (July 2026): NorMuon and AdamW.

| group            | parameters                                | rule    | rate       | betas         | decay         |
|------------------|-------------------------------------------|---------|------------|---------------|---------------|
| lm_head          | head.weight; a tied embedding             | adamw   | 0.008 w    | (0.8, 0.96)   | 0.01          |
| wte              | embed.weight, position.weight             | adamw   | 0.3 w      | (0.8, 0.995)  | 0.001         |
| value_embeds     | value_embeds.*                            | adamw   | 0.15 w     | (0.8, 0.995)  | 0.01          |
| resid_lambdas    | resid_lambdas                             | adamw   | 0.005      | (0.8, 0.95)   | 0.05          |
| x0_lambdas       | x0_lambdas                                | adamw   | 0.5        | (0.96, 0.95)  | 0             |
| smear, backout   | smear_gate, smear_lambda, backout_lambda  | adamw   | 0.2        | (0.8, 0.95)   | 0             |
| gains            | other tensors of fewer than two dimensions | adamw  | 0.0006     | (0.8, 0.95)   | 0             |
| one per shape    | matrices in blocks; q, k, v of a fused weight apart | normuon | 0.02 | 0.95      | weight_decay  |

w is `width_factor`; every rate is multiplied by `rate_factor` and by learning_rate / 6e-4, so that one number, whose
usual value is 6e-4, moves all. The gains are ours: nanochat has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from gpt_kernels import polar_express
from gpt_optim.factories import sharding
from gpt_optim.groups import clean_names
from gpt_optim.muon import MuonAdamW
from gpt_optim.rules import QKV, qkv_split

REFERENCE_RATE = 6e-4
"""The `learning_rate` at which the rates are those of the table."""
MATRIX_RATE = 0.02


@dataclass(frozen=True)
class AdamGroup:
    """One of AdamW's groups: which parameters, and their options."""

    name: str
    pattern: str
    rate: float
    betas: tuple[float, float]
    decay: float = 0.0
    by_width: bool = False
    """Its rate follows the model's width."""


ADAM_GROUPS = (
    AdamGroup("lm_head", r"^head\.weight$", 0.008, (0.8, 0.96), 0.01, by_width=True),
    AdamGroup("wte", r"^(embed|position)\.weight$", 0.3, (0.8, 0.995), 0.001, by_width=True),
    AdamGroup("value_embeds", r"^value_embeds\.", 0.15, (0.8, 0.995), 0.01, by_width=True),
    AdamGroup("resid_lambdas", r"^resid_lambdas$", 0.005, (0.8, 0.95), 0.05),
    AdamGroup("x0_lambdas", r"^x0_lambdas$", 0.5, (0.96, 0.95)),
    AdamGroup("smear_backout", r"^(smear_gate\.weight|smear_lambda|backout_lambda)$", 0.2, (0.8, 0.95)),
)
GAINS = AdamGroup("gains", "", 6e-4, (0.8, 0.95))


def depth(
    model: nn.Module,
    learning_rate: float = REFERENCE_RATE,
    weight_decay: float = 0.28,
    momentum: float = 0.95,
    normuon_beta2: float = 0.9,
    rate_factor: float = 1.0,
    width_factor: float = 1.0,
    decay_factor: float = 1.0,
    cautious: bool = True,
    clip_muon: bool = False,
    compile: bool = False,
    zero: int = 0,
    process_group: dist.ProcessGroup | None = None,
) -> MuonAdamW:
    """`MuonAdamW` with the groups of the table above, for `gpt_core.models.gpt` and `gpt_core.models.nanochat`.

    weight_decay: of the matrices, times `decay_factor`, rate and scale, as in nanochat. The three factors are what
    `gpt_core.scaling` works out from the depth. clip_muon: clipping scales the matrices' gradients
    too. zero: ZeRO stage over `process_group`; 0 shares nothing.

    ValueError: a factor or rate that is not positive, or a parameter that belongs to no group: a matrix outside the
    blocks that the table does not name.
    """
    for name, value in (("learning_rate", learning_rate), ("rate_factor", rate_factor), ("width_factor", width_factor)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    gain = learning_rate / REFERENCE_RATE * rate_factor
    groups = []
    for group, members in _adam_members(model).items():
        rate = gain * group.rate * (width_factor if group.by_width else 1.0)
        options = {"kind": "adamw", "lr": rate, "betas": group.betas, "weight_decay": group.decay, "cautious": False}
        groups.append(_group(group.name, members, options))
    for (shape, split), members in _matrices(model).items():
        name = "matrices " + "x".join(map(str, shape))
        groups.append(_group(name, members, {"kind": "normuon", "lr": gain * MATRIX_RATE, "split": split}))
    return MuonAdamW(
        groups,
        lr=gain * MATRIX_RATE,
        momentum=momentum,
        beta2=normuon_beta2,
        weight_decay=weight_decay * decay_factor,
        cautious=cautious,
        scale_decay=True,
        eps=1e-10,
        orthogonalize=polar_express,
        clip_muon=clip_muon,
        compile=compile,
        **sharding(zero, process_group),
    )


Members = list[tuple[str, Tensor]]


def _adam_members(model: nn.Module) -> dict[AdamGroup, Members]:
    """AdamW's groups that have parameters, in the order of the table; a matrix in a block is in none."""
    found: dict[AdamGroup, Members] = {group: [] for group in (*ADAM_GROUPS, GAINS)}
    tied = not any(re.search(ADAM_GROUPS[0].pattern, name) for names in clean_names(model).values() for name in names)
    for parameter, (name, *_) in clean_names(model).items():
        if name.startswith("blocks.") and parameter.dim() == 2:
            continue
        takers = [group for group in ADAM_GROUPS if re.search(group.pattern, name)]
        if tied and name == "embed.weight":  # read by the head, which decides how fast it may move
            takers = [ADAM_GROUPS[0]]
        if not takers and parameter.dim() < 2:
            takers = [GAINS]
        if not takers:
            raise ValueError(
                f"gpt_optim.depth has no group for {name} of shape {tuple(parameter.shape)}: no matrix outside the "
                "blocks goes to Muon; use gpt_optim.muon for this model"
            )
        found[takers[0]].append((name, parameter))
    return {group: members for group, members in found.items() if members}


def _matrices(model: nn.Module) -> dict[tuple[Sequence[int], Sequence[int] | None], Members]:
    """The matrices of the blocks by shape, and by the rows of what is fused in them."""
    found: dict[tuple[Sequence[int], Sequence[int] | None], Members] = {}
    for parameter, (name, *_) in clean_names(model).items():
        if name.startswith("blocks.") and parameter.dim() == 2:
            split = qkv_split(name, parameter, False) if re.search(QKV, name) else None
            found.setdefault((tuple(parameter.shape), split), []).append((name, parameter))
    return found


def _group(name: str, members: Members, options: dict[str, Any]) -> dict[str, Any]:
    names, parameters = zip(*members, strict=True)
    return {**options, "name": name, "params": list(parameters), "param_names": list(names)}

"""Options of a parameter group: what they may be, and which parameters they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt_optim.updates import SCALES, Blocks

KINDS = ("muon", "normuon", "adamw")
FIXED = ("kind", "split", "matrix_rows", "transposed", "scale", "scale_decay", "low_bits", "narrow", "rate_factors")
"""Options that are read when a group is added, and cannot change."""
BESIDES = {"params", "param_names", "initial_lr", "step", "name"}
"""What a group may hold besides the optimizer's own options."""


def check_group(group: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """ValueError for an unknown option, a value out of range, or a parameter that the group's kind cannot take."""
    for option in group.keys() - known.keys() - BESIDES:
        near = get_close_matches(option, known, n=1)
        raise ValueError(
            f"unknown group option {option!r}; {f'did you mean {near[0]!r}? ' if near else ''}known: {', '.join(known)}"
        )
    if group["kind"] not in KINDS:
        raise ValueError(f"a group's kind must be one of {', '.join(KINDS)}, got {group['kind']!r}")
    if not group["lr"] >= 0 or not group["weight_decay"] >= 0:  # not a number is neither
        raise ValueError(f"lr and weight_decay must not be negative, got {group['lr']}, {group['weight_decay']}")
    for name in ("momentum", "beta2"):
        if not 0.0 <= group[name] < 1.0:
            raise ValueError(f"{name} must lie in [0, 1), got {group[name]}")
    if not all(0.0 <= beta < 1.0 for beta in group["betas"]) or not group["eps"] >= 0:
        raise ValueError(f"betas must lie in [0, 1) and eps not below 0, got {group['betas']} and {group['eps']}")
    if group["scale"] not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {group['scale']!r}")
    if group["rate_factors"] is not None and not (group["rate_factors"] and min(group["rate_factors"]) > 0):
        raise ValueError(f"rate_factors must be positive, one for each matrix in turn, got {group['rate_factors']}")
    if not isinstance(group["every"], int) or group["every"] < 1:
        raise ValueError(f"every must be a whole number of steps, at least 1, got {group['every']!r}")
    for p in group["params"]:
        if not p.requires_grad:
            raise ValueError(f"a parameter of shape {tuple(p.shape)} does not require gradients: leave it out")
        if not p.is_floating_point():
            raise ValueError(f"parameters must be real floating point numbers, got {p.dtype}")
        if group["kind"] != "adamw":
            _check_matrix(p, group)


def _check_matrix(p: Tensor, group: Mapping[str, Any]) -> None:
    if p.dim() < 2:
        raise ValueError(
            f"{group['kind']} takes matrices, got a parameter of shape {tuple(p.shape)}: use kind='adamw' for it"
        )
    if p.numel() == 0 or not p.is_contiguous():
        raise ValueError(f"matrices must be contiguous and not empty, got shape {tuple(p.shape)}, stride {p.stride()}")
    rows, columns = reversed(p.shape[-2:]) if group["transposed"] else p.shape[-2:]
    if group["matrix_rows"] is not None:
        if group["split"] or group["transposed"] or group["matrix_rows"] < 1 or rows % group["matrix_rows"]:
            raise ValueError(
                f"matrix_rows must divide the rows of every parameter of the group, which is neither split nor "
                f"transposed: got {group['matrix_rows']} for shape {tuple(p.shape)}"
            )
        return
    split = group["split"] or (rows,)
    if sum(split) != rows or min(split) < 1:
        side = "columns" if group["transposed"] else "rows"
        raise ValueError(f"split {tuple(split)} must add up to the {side} of every matrix of the group, got {rows}")
    if group["scale_decay"] and len({SCALES[group["scale"]](b.rows, columns) for b in Blocks.of(split)}) > 1:
        raise ValueError(f"scale_decay needs blocks of one scale, but split is {tuple(split)} of {columns} columns")


def alike(params: Sequence[Tensor], *, by_shape: bool) -> list[list[Tensor]]:
    """Parameters that can be updated together: one dtype, device and mesh, and one shape if `by_shape`; in order."""
    sets: dict[Any, list[Tensor]] = {}
    for p in params:
        mesh = p.device_mesh if isinstance(p, DTensor) else None
        key = (p.dtype, p.device, mesh, p.placements if isinstance(p, DTensor) else None)
        sets.setdefault((*key, p.shape if by_shape else None), []).append(p)
    return list(sets.values())

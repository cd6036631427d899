"""Loading a state_dict into state that was allocated beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt_optim.options import FIXED

RESHARD = (
    "to go on with another number of processes, read the checkpoint with torch.distributed.checkpoint.load into this "
    "optimizer's own state_dict() first"
)


@torch.no_grad()
def load_state(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Copy the tensors in place and take over the groups' options. ValueError where groups, keys or shapes differ,
    before anything is changed."""
    groups, saved_groups = optimizer.param_groups, state_dict["param_groups"]
    sizes, saved_sizes = [len(g["params"]) for g in groups], [len(g["params"]) for g in saved_groups]
    if sizes != saved_sizes:
        raise ValueError(f"the state has groups of {saved_sizes} parameters, this optimizer of {sizes}: build it alike")
    for i, (group, saved_group) in enumerate(zip(groups, saved_groups, strict=True)):
        for option in FIXED:
            if _plain(group[option]) != _plain(saved_group.get(option, group[option])):
                raise ValueError(
                    f"group {i} was saved with {option}={saved_group[option]!r}, here it is {group[option]!r}: build "
                    "the optimizer alike"
                )
    ours = [p for group in groups for p in group["params"]]
    saved_ids = [i for group in saved_groups for i in group["params"]]
    copies: list[tuple[Tensor, Tensor]] = []
    for place, (p, saved_id) in enumerate(zip(ours, saved_ids, strict=True)):
        entries, saved = optimizer.state.get(p, {}), state_dict["state"].get(saved_id, {})
        if entries.keys() != saved.keys():
            raise ValueError(
                f"parameter {place} of shape {tuple(p.shape)} keeps {sorted(entries)}, the state has {sorted(saved)}; "
                f"load what the same optimizer saved, on as many processes; {RESHARD}"
            )
        copies += [(entries[key], saved[key]) for key in entries]
    for own, saved in copies:
        if own.shape != saved.shape or isinstance(own, DTensor) != isinstance(saved, DTensor):
            raise ValueError(f"state {_layout(own)} cannot be loaded from {_layout(saved)}; {RESHARD}")
        if isinstance(own, DTensor) and isinstance(saved, DTensor) and own.to_local().shape != saved.to_local().shape:
            raise ValueError(f"state {_layout(own)} is spread differently than {_layout(saved)}; {RESHARD}")
    for own, saved in copies:
        if isinstance(own, DTensor) and isinstance(saved, DTensor):
            own, saved = own.to_local(), saved.to_local()
        if own is not saved:
            own.copy_(saved)
    for group, saved_group in zip(groups, saved_groups, strict=True):
        group.update({key: value for key, value in saved_group.items() if key not in ("params", "param_names")})


def _plain(option: Any) -> Any:
    return list(option) if isinstance(option, tuple) else option


def _layout(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}{' sharded' if isinstance(tensor, DTensor) else ''}"

"""Optimizer state by parameter name: tensors for torch.distributed.checkpoint, the rest as JSON.

Keyed by name, not by position, it survives another grouping or another number of ranks; sharded (DTensor) state is
resharded by torch.distributed.checkpoint when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.checkpoint.discovery import CheckpointError
from gpt_core.checkpoint.model_file import clean_name

SEPARATOR = "/"  # never part of a parameter name
ADAM = {"exp_avg", "exp_avg_sq", "step"}
SAME_OPTIMIZER = (
    "resume with the optimizer that it was saved with (optimizer.module in the run's config.yaml), or start a new run "
    "from its weights (init_from=PATH)"
)


def _names(model: nn.Module, optimizer: Optimizer) -> dict[Tensor, str]:
    names: dict[Tensor, str] = {parameter: clean_name(name) for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in names:
                raise ValueError("the optimizer holds a parameter that is not the model's; build it from this model")
    return names


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Every tensor of the optimizer's state under `<parameter name>/<key>`, e.g. `head.weight/exp_avg`."""
    names = _names(model, optimizer)
    return {
        f"{names[parameter]}{SEPARATOR}{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def optimizer_options(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """What is not a tensor: each group's options with its parameters' names, and scalar state by parameter name."""
    names = _names(model, optimizer)
    groups = [
        {"params": [names[p] for p in group["params"]]}
        | {k: v for k, v in group.items() if k != "params" and _plain(v)}
        for group in optimizer.param_groups
    ]
    scalars = {
        names[parameter]: {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        for parameter, state in optimizer.state.items()
    }
    scalars = {name: values for name, values in scalars.items() if values}
    return {"type": type(optimizer).__name__, "groups": groups, "scalars": scalars}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, tuple, list))


def destinations(
    model: nn.Module, optimizer: Optimizer, saved: Mapping[str, tuple[torch.Size, torch.dtype]]
) -> dict[str, Tensor]:
    """What to read the saved tensors into: the optimizer's own ones where it has them before its first step.

    For the others: new ones, laid out like the parameter (device, sharding) where the shapes agree.
    """
    own = optimizer_tensors(model, optimizer)
    if own:
        _check_own(own, saved)
        return own
    parameters = {clean_name(name): parameter for name, parameter in model.named_parameters()}
    made = {}
    for key, (shape, dtype) in saved.items():
        name = key.rpartition(SEPARATOR)[0]
        if name not in parameters:
            raise CheckpointError(f"the checkpoint has optimizer state for {name!r}, which the model does not have")
        parameter = parameters[name].detach()
        same = parameter.shape == shape
        made[key] = torch.zeros_like(parameter, dtype=dtype) if same else torch.zeros(shape, dtype=dtype)
    return made


def _check_own(own: Mapping[str, Tensor], saved: Mapping[str, tuple[torch.Size, torch.dtype]]) -> None:
    different = sorted(own.keys() ^ saved.keys())
    different += [key for key in own.keys() & saved.keys() if (own[key].shape, own[key].dtype) != saved[key]]
    if different:
        raise CheckpointError(
            f"the optimizer lays its state out in another way than the checkpoint does ({', '.join(different[:3])}); "
            f"{SAME_OPTIMIZER}"
        )


def restore_optimizer(
    model: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> None:
    """Put the state back. Groups are compared by their parameters' names, so another grouping is found and refused.

    Hyper-parameters (the optimizer's `defaults`: rates, betas, decay) stay as configured now, so that they can be
    changed on resume; other group entries, such as step counters, are restored. An optimizer of another class is
    accepted where its state is the same: Adam's moments are, whether one process keeps them or several share them.
    """
    names = _names(model, optimizer)
    saved_type = options.get("type", type(optimizer).__name__)
    other_class = saved_type != type(optimizer).__name__
    entries = {key.rpartition(SEPARATOR)[2] for key in tensors}
    adam = isinstance(optimizer, torch.optim.AdamW) and entries == ADAM
    alike = adam or bool(optimizer.state)  # which was compared key by key in `destinations`
    if other_class and not alike:
        raise CheckpointError(
            f"the checkpoint has the state of {saved_type}, the optimizer is {type(optimizer).__name__}; "
            f"{SAME_OPTIMIZER}"
        )
    if len(options["groups"]) != len(optimizer.param_groups):
        raise CheckpointError(
            f"the checkpoint has {len(options['groups'])} parameter groups, the optimizer "
            f"{len(optimizer.param_groups)}; {SAME_OPTIMIZER}"
        )
    for group, saved in zip(optimizer.param_groups, options["groups"], strict=True):
        if [names[p] for p in group["params"]] != saved["params"]:
            raise CheckpointError(f"the checkpoint groups the parameters differently; {SAME_OPTIMIZER}")
        configured = {
            "params",
            "initial_lr",
            "initial_weight_decay",
            *optimizer.defaults,
            *(saved.keys() - group.keys() if other_class else ()),
        }
        group.update({key: value for key, value in saved.items() if key not in configured})
    by_name = {name: parameter for parameter, name in names.items()}
    # torch's fused and capturable kernels read the step counter on the parameter's device, the others on the CPU
    on_device = {p for g in optimizer.param_groups if g.get("fused") or g.get("capturable") for p in g["params"]}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition(SEPARATOR)
        parameter = by_name[name]
        moves = entry == "step" and parameter in on_device
        optimizer.state[parameter][entry] = tensor.to(parameter.device) if moves else tensor
    for name, values in options["scalars"].items():
        optimizer.state[by_name[name]].update(values)

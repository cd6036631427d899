"""What the loop changes in the optimizer's groups from step to step: learning rate, momentum, weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch.optim import Optimizer

from gpt_core.config import Factory
from gpt_core.config.factory import signature_of
from gpt_core.training.stages import Stages

Schedule: TypeAlias = "Callable[[int], float]"
"""A pure function of the step about to be taken, counted from 0: a resumed run needs nothing but its step."""


class GroupSchedules:
    """Schedules of one optimizer.

    rate and weight_decay are multipliers of what each group was configured with; momentum is the value itself, of every
    group that has one.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rate: Schedule,
        momentum: Schedule | None = None,
        weight_decay: Schedule | None = None,
    ):
        check_schedules(optimizer, momentum, weight_decay)
        self.rate, self.momentum, self.weight_decay = rate, momentum, weight_decay
        self.groups = optimizer.param_groups
        # kept in the groups: a second loop over the same optimizer starts from the same values
        self.rates = [group.setdefault("initial_lr", group["lr"]) for group in self.groups]
        self.decays = []
        if weight_decay is not None:
            decaying = [group for group in self.groups if "weight_decay" in group]
            self.decays = [
                (group, group.setdefault("initial_weight_decay", group["weight_decay"])) for group in decaying
            ]

    def set(self, step: int) -> float:
        """Set the options for `step`; returns the first group's learning rate."""
        factor = self.rate(step)
        for group, rate in zip(self.groups, self.rates, strict=True):
            group["lr"] = rate * factor
        if self.weight_decay is not None:
            factor = self.weight_decay(step)
            for group, decay in self.decays:
                group["weight_decay"] = decay * factor
        if self.momentum is not None:
            value = self.momentum(step)
            for group in self.groups:
                if "momentum" in group:
                    group["momentum"] = value
        return self.groups[0]["lr"]


def check_schedules(optimizer: Optimizer, momentum: Schedule | None, weight_decay: Schedule | None) -> None:
    """ValueError for a schedule of what no group has: it would do nothing, silently."""
    groups, name = optimizer.param_groups, type(optimizer).__name__
    if momentum is not None and not any("momentum" in group for group in groups):
        raise ValueError(
            f"momentum_scheduler is set, but no group of {name} has a momentum; use an optimizer that has one "
            "(gpt_optim.muon, torch.optim.SGD), or --momentum_scheduler=null"
        )
    if weight_decay is not None and not any(
        group.get("initial_weight_decay", group.get("weight_decay")) for group in groups
    ):
        raise ValueError(
            f"weight_decay_scheduler is set, but no group of {name} decays its weights; set the optimizer's "
            "weight_decay, or --weight_decay_scheduler=null"
        )


def check_stages(stages: Stages, scheduler: Factory, optimizer: Factory) -> None:
    """ValueError where a key of `stages` would be ignored, or says what a component's argument says."""
    wanted: list[tuple[str, bool, str, Factory, tuple[str, ...]]] = [
        ("lr", stages.config.lr is not None, "scheduler", scheduler, ("factors", "boundaries")),
        ("untie_last", stages.config.untie_last, "optimizer", optimizer, ("untie_at",)),
    ]
    for key, is_set, section, factory, names in wanted:
        twice = set(names) & factory.kwargs.keys()
        if is_set and twice:
            raise ValueError(
                f"stages.{key} and {section}.module_kwargs.{min(twice)} say the same thing twice; leave one of them out"
            )
        if is_set and not set(names) <= signature_of(factory.target).parameters.keys():
            raise ValueError(
                f"stages.{key} is set, but {factory.path} takes no {' and '.join(names)}: it would do nothing. Use "
                "gpt_optim.schedules.stages and gpt_optim.speedrun, or leave it out"
            )

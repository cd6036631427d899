"""Optimizers that share their work and state among the ranks (ZeRO), as this package sees them: by their methods.

ZeRO-1: gradients are averaged by DDP, the state is sharded. ZeRO-2: there is no DDP, the optimizer reduces the
gradients itself, each rank getting the part it needs (Rajbhandari et al. 2020, arXiv:1910.02054).
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.config import Factory
from gpt_core.config.factory import signature_of

ZERO = {"zero1": 1, "zero2": 2}


@runtime_checkable
class ReducingOptimizer(Protocol):
    """What ZeRO-2 needs: the only place where the norm of the averaged gradient is known is the optimizer."""

    def reduce_gradients(self) -> None:
        """Average the gradients over the ranks, once per step; `step` and `clip_grad_norm_` do it if nobody did."""
        ...

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Reduce, clip by the global norm `max_norm` (0: only measure) what the optimizer lets be clipped; returns the
        norm of all gradients before, equal on all ranks."""
        ...


@runtime_checkable
class CountsState(Protocol):
    def expected_state_bytes(self) -> int:
        """Bytes of optimizer state that this rank will hold, worked out from shapes."""
        ...


def steps_between_updates(optimizer: Optimizer) -> int:
    """n where every n-th step updates all parameters: groups with `every` keep gradients until their turn.

    These are in no state_dict: a state to go on from is that after a multiple of n steps.
    """
    return math.lcm(*(group.get("every", 1) for group in optimizer.param_groups))


def check_optimizer(factory: Factory, strategy: str) -> None:
    """ValueError where the optimizer of the configuration cannot do `strategy`; nothing is built."""
    if "zero" in factory.kwargs:
        raise ValueError(
            f"optimizer.module_kwargs.zero is set by parallel.strategy: leave it out and use --parallel.strategy="
            f"{'zero' + str(factory.kwargs['zero']) if factory.kwargs['zero'] else 'ddp'}"
        )
    missing = {"zero", "process_group"} - signature_of(factory.target).parameters.keys()
    if strategy in ZERO and missing:
        raise ValueError(
            f"parallel.strategy is {strategy}, but {factory.path} cannot shard its state: it takes no "
            f"{' and no '.join(sorted(missing))}. Use an optimizer that does (gpt_optim.adamw, gpt_optim.muon), or "
            "parallel.strategy=ddp or fsdp, which work with any"
        )


def build_optimizer(factory: Factory, model: nn.Module, strategy: str, **more: Any) -> Optimizer:
    """The optimizer over `model`'s parameters as they are now: shard or broadcast them first. more: for the factory."""
    zero = ZERO.get(strategy, 0)
    optimizer = factory.build(model, zero=zero, process_group=dist.group.WORLD if zero else None, **more)
    if strategy == "zero2" and not isinstance(optimizer, ReducingOptimizer):
        raise ValueError(
            f"parallel.strategy is zero2, but the {type(optimizer).__name__} of {factory.path} has no "
            "reduce_gradients and clip_grad_norm_: nobody would average the gradients; use zero1, ddp or fsdp"
        )
    return optimizer

"""Compile what a run in stages needs before its clock starts: its steps around every boundary, then everything back.

Windows, batch sizes and the number of loss weights are constants of the compiled code, so that every change compiles
anew. Source of the procedure: KellerJordan/modded-nanogpt, whose clock leaves it out as well.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from gpt_core.checkpoint.rng import restore_rng_state, rng_state
from gpt_core.distributed import Distributed
from gpt_core.training.config import GeneralConfig
from gpt_core.training.hooks import FollowStages
from gpt_core.training.parts import Parts
from gpt_core.training.state import Hook, StepResult, TrainState
from gpt_core.training.stop import StopRequest


def warms_up(parts: Parts, general: GeneralConfig) -> bool:
    """Whether this run takes the steps around its boundaries first: `stages.warm_up`, or if anything is compiled."""
    wanted = parts.stages.config.warm_up
    compiles = general.compile != "off" and parts.not_compiled is None
    return bool(parts.stages) and (compiles if wanted is None else wanted)


def warm_up(parts: Parts, ranks: Distributed, train_on: Callable[..., TrainState], stop: StopRequest) -> str:
    """Validate and train at each step around a boundary, and restore all that this has changed; returns a report.

    Steps are those of the training loop itself (`train_on`, the loop without max_steps and hooks). Restored bit for
    bit: weights and buffers, the optimizer's state and options, the scaler, random numbers, the positions of the
    loaders, and the run's counters. Collective.
    """
    started = time.perf_counter()
    before = Snapshot(parts, ranks)
    follow = FollowStages(parts.stages, parts.state.model, parts.loss, parts.splits.train)
    validate = _ForwardOnce(parts, ranks)
    steps = parts.stages.around_boundaries(parts.state.step)
    taken = 0
    for step in steps:
        parts.state.step, parts.state.status = step, "running"  # the step before has "completed" the run
        for group in parts.state.optimizer.param_groups:
            if "step" in group:
                group["step"] = step  # what an optimizer does at its n-th step must be compiled as well
        train_on(max_steps=step + 1, hooks=[follow, validate])
        taken += 1
        stopping, *_ = ranks.sum([stop.requested])  # the run itself will see it, and end as it always does
        if stopping:
            break
    before.restore(parts, ranks)
    follow.on_start(parts.state)
    seconds = time.perf_counter() - started
    where = ", ".join(map(str, steps[:taken]))
    return f"warm-up: steps {where} in {seconds:.1f} s, put back and not in the run's clock"


class _ForwardOnce(Hook):
    """One evaluation pass before the step: validation is compiled code too."""

    def __init__(self, parts: Parts, ranks: Distributed):
        self.parts, self.ranks = parts, ranks

    @torch.no_grad()
    def on_start(self, state: TrainState) -> None:
        parts = self.parts
        parts.forward.eval()
        batch = next(parts.splits.val).to(self.ranks.device)
        with parts.autocast():
            parts.forward(batch.inputs, batch.targets, getattr(batch, "cu_seqlens", None))
        parts.forward.train()


class Snapshot:
    """All that training changes, copied. Large: keep it no longer than needed."""

    def __init__(self, parts: Parts, ranks: Distributed):
        state = parts.state
        self.model = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        self.optimizer = copy.deepcopy(state.optimizer.state_dict())
        self.scaler = copy.deepcopy(state.scaler.state_dict())
        self.data = [copy.deepcopy(loader.state_dict()) for loader in (parts.splits.train, parts.splits.val)]
        self.rng = rng_state(ranks.device)
        self.counters = replace(state)

    def restore(self, parts: Parts, ranks: Distributed) -> None:
        state = parts.state
        state.model.load_state_dict(self.model)
        state.optimizer.zero_grad(set_to_none=True)
        for parameter in state.model.parameters():
            parameter.grad = None  # also those that an optimizer keeps for its next step
        state.optimizer.load_state_dict(self.optimizer)
        state.scaler.load_state_dict(self.scaler)
        for loader, position in zip((parts.splits.train, parts.splits.val), self.data, strict=True):
            loader.load_state_dict(position)
        restore_rng_state(self.rng, ranks.device)
        for name, value in vars(self.counters).items():
            setattr(state, name, value)
        state.last = StepResult()

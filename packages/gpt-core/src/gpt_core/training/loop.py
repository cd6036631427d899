"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from gpt_core.distributed import Distributed
from gpt_core.training.accumulation import BatchPlan
from gpt_core.training.losses import Loss
from gpt_core.training.nonfinite import SkippedStep, TrainingDiverged, diagnosis
from gpt_core.training.parallel import gradient_sync
from gpt_core.training.schedules import GroupSchedules, Schedule
from gpt_core.training.sharded_optimizer import steps_between_updates
from gpt_core.training.state import Hook, StepResult, TrainState
from gpt_core.training.stop import StopRequest


def train(
    state: TrainState,
    forward: nn.Module,
    *,
    loss: Loss,
    schedule: Schedule,
    plan: BatchPlan,
    max_steps: int,
    distributed: Distributed,
    autocast: Callable[[], AbstractContextManager],
    hooks: Sequence[Hook] = (),
    max_nonfinite_steps: int = 3,
    momentum_schedule: Schedule | None = None,
    weight_decay_schedule: Schedule | None = None,
    stop: StopRequest | None = None,
    clock_is_read: Callable[[int], bool] | None = None,
) -> TrainState:
    """Take optimizer steps until `state.step == max_steps`, a signal, or divergence.

    `forward` is `ModelWithLoss(state.model, loss)`, possibly compiled and spread over the ranks (`parallelize`).
    Gradients are those of the mean loss over every target of the step: all micro-steps, all ranks, whatever the number
    of targets in each; a loss that has `divisor(targets)` says by what its sum is divided instead. `schedule` and
    `weight_decay_schedule` multiply what each group of the optimizer was configured with, `momentum_schedule` is the
    value itself.
    Hooks see every step; time spent in them is not step time. A signal ends training where no group of the optimizer
    keeps gradients for a later step; `stop` is the one that already waits for it. A step whose gradient is not finite
    is skipped on all ranks; `max_nonfinite_steps` of them in a row raise `TrainingDiverged`. With a scaler that
    measures no norm none is skipped. A step's update is waited for where `clock_is_read(steps taken)`; None: always.
    """
    parameters = [p for p in state.model.parameters() if p.requires_grad]
    schedules = GroupSchedules(state.optimizer, schedule, momentum_schedule, weight_decay_schedule)
    divisor = getattr(loss, "divisor", None)
    whole_updates = steps_between_updates(state.optimizer)
    skipped: list[SkippedStep] = []  # in a row
    forward.train()
    with nullcontext(stop) if stop is not None else StopRequest() as stop:
        for hook in hooks:
            hook.on_start(state)
        while state.step < max_steps and state.status == "running":
            started, started_cpu = time.perf_counter(), time.process_time()

            # The step's batches come first: the mean is over all its targets, so their number must be known.
            batches = [next(state.data) for _ in range(plan.micro_steps)]
            targets = sum(int(loss.count(batch.targets)) for batch in batches)
            parts = sum(int(divisor(batch.targets)) for batch in batches) if divisor else targets
            given = sum(batch.inputs.numel() for batch in batches)
            data_seconds = time.perf_counter() - started
            # all ranks stop at the same step
            count, divided_by, tokens, stopping = distributed.sum([targets, parts, given, stop.requested])
            if not count:
                raise ValueError(
                    f"step {state.step}: none of its {tokens:.0f} targets counts; every one of them is masked"
                )

            # rows that are mostly padding: only what counts is a token
            tokens = int(count if getattr(loss, "counts_tokens", False) else tokens)
            rate = schedules.set(state.step)
            result = StepResult(count=count, tokens=tokens, lr=rate, data_seconds=data_seconds)
            losses = []
            scale = distributed.world_size / divided_by  # ranks are averaged; we want the sum
            for i, batch in enumerate(batches):
                batch = batch.to(distributed.device, non_blocking=True)
                with gradient_sync(forward, last=i == len(batches) - 1):
                    with autocast():
                        sums = forward(batch.inputs, batch.targets, getattr(batch, "cu_seqlens", None))
                    state.scaler.scale(sums.objective * scale).backward()
                result.loss_sum = result.loss_sum.to(sums.loss.device) + sums.loss
                result.auxiliary_sum = result.auxiliary_sum.to(sums.loss.device) + sums.auxiliary
                losses.append(sums.loss)

            state.scaler.unscale(state.optimizer)
            for hook in hooks:
                hook.on_gradients(state)
            norm = state.scaler.clip(parameters, state.optimizer)
            result.grad_norm = None if norm is None else float(norm)
            result.finite = result.grad_norm is None or math.isfinite(result.grad_norm)
            state.scaler.step(state.optimizer, finite=result.finite)
            state.optimizer.zero_grad(set_to_none=True)

            if result.finite:
                skipped.clear()
            else:
                skipped.append(SkippedStep.of(state.step + 1, result, loss, batches, losses))
            if clock_is_read is None or clock_is_read(state.step + 1):
                distributed.wait_for_device()  # or what is left of the update would be in no step's time
            result.seconds = time.perf_counter() - started
            state.nonfinite_steps += not result.finite
            state.step += 1
            state.tokens += tokens
            state.train_seconds += result.seconds
            state.cpu_seconds += time.process_time() - started_cpu
            state.last = result
            if len(skipped) >= max_nonfinite_steps:
                raise TrainingDiverged(diagnosis(state.model, skipped))
            for hook in hooks:
                hook.on_step(state)
            if stopping and state.step % whole_updates == 0:
                state.status = "interrupted"

        if state.status == "running":
            state.status = "completed"
        for hook in hooks:
            hook.on_end(state)
    return state

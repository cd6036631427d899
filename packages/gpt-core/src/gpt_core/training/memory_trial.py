"""A device batch that fits: one micro-step is tried before the first step, with half the sequences where it fails."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch

from gpt_core.config import Config
from gpt_core.distributed import Distributed
from gpt_core.training.accumulation import BatchPlan, exact_sizes
from gpt_core.training.parallel import gradient_sync
from gpt_core.training.parts import Parts, first_inputs
from gpt_core.training.state_bytes import optimizer_bytes, state_bytes


class OutOfMemory(ValueError):
    """A run that does not fit into the memory of its GPU."""


def build_fitting(
    config: Config, ranks: Distributed, build: Callable[[Config], Parts]
) -> tuple[Config, Parts, list[str]]:
    """`build(config)`, again with at most half the device batch for as long as a micro-step does not fit on every rank.

    The tokens of a step stay as they are: more micro-steps make them. Returns the configuration that was built, and
    warnings. Collective. OutOfMemory where even one sequence does not fit. Not tried, for want of a trial without
    communication or of one batch to halve: fsdp, and stages that set the device batch. Nor is eval_only.
    """
    warnings: list[str] = []
    while True:
        parts = build(config)
        if not _is_tried(config, parts, ranks) or fits(parts, ranks):
            return config, parts, warnings
        plan = parts.plan
        del parts
        gc.collect()
        torch.cuda.empty_cache()
        config, warning = halved(config, plan)
        warnings.append(warning)


def fits(parts: Parts, ranks: Distributed) -> bool:
    """Whether a step's micro-steps go into memory on every rank, beside the state that the optimizer has yet to make.

    Collective, but the micro-steps are not: a rank that breaks off leaves none waiting. Data, random numbers and
    gradients are put back.
    """
    device, plan = ranks.device, parts.plan
    coming = state_bytes(parts.state.model, parts.state.optimizer, parts.strategy, ranks.world_size, plan.micro_steps)
    missing = max(0, (coming.optimizer or 0) - optimizer_bytes(parts.state.optimizer))
    failed = False
    try:
        reserved = torch.empty(missing, dtype=torch.uint8, device=device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            for _ in range(min(2, plan.micro_steps)):  # from the second on, gradients are there already
                inputs = first_inputs(parts.splits.train, device)
                with gradient_sync(parts.forward, last=False):
                    with parts.autocast():
                        sums = parts.forward(*inputs)
                    sums.objective.backward()
        del reserved
    except torch.OutOfMemoryError:
        failed = True
    parts.forward.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)  # or the trial's would be reported as the run's
    (failures,) = ranks.sum([failed])
    return not failures


def halved(config: Config, plan: BatchPlan) -> tuple[Config, str]:
    """`config` with the largest device batch up to half of the plan's that makes the same step, and what to say."""
    if plan.device_batch_size == 1:
        raise OutOfMemory(
            f"out of memory with one sequence of {plan.context_length} tokens per micro-step: shorten "
            "training.context_length, set training.activation_checkpointing=true or training.fused_loss=true, share "
            "the state (parallel.strategy=fsdp on several GPUs), or take a smaller model"
        )
    sizes = exact_sizes(plan.sequences, plan.world_size, plan.device_batch_size // 2)
    assert sizes is not None, "whole micro-steps on every rank"
    size, micro_steps = sizes
    values = {
        "training.device_batch_size": size,
        "training.global_batch_size": plan.sequences,
        "training.gradient_accumulation_steps": None,
    }
    return config.changed(values, "memory"), (
        f"out of memory: device batch {plan.device_batch_size} -> {size} sequences, micro-steps {plan.micro_steps} -> "
        f"{micro_steps}; a step still takes {plan.tokens:,} tokens (training.halve_batch=false: an error instead)"
    )


@contextmanager
def memory_errors_explained(parts: Parts) -> Generator[None]:
    """OutOfMemory that says what to try, instead of the allocator's own error."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        plan = parts.plan
        smaller = exact_sizes(plan.sequences, plan.world_size, max(1, plan.device_batch_size // 2))
        advice = f"training.device_batch_size={smaller[0]}, " if smaller and plan.device_batch_size > 1 else ""
        raise OutOfMemory(
            f"out of memory at step {parts.state.step + 1} with {plan.device_batch_size} sequences of "
            f"{plan.context_length} tokens per micro-step ({str(error).partition('. ')[0]}). Try {advice}"
            f"training.global_batch_size={plan.sequences} (the same step), training.activation_checkpointing=true, or "
            "parallel.strategy=zero2 or fsdp on several GPUs"
        ) from error


def _is_tried(config: Config, parts: Parts, ranks: Distributed) -> bool:
    wanted = config.section("training").halve_batch
    several_batches = parts.stages.config.device_batch_size is not None
    if parts.strategy == "fsdp" or several_batches or config.section("eval").eval_only:
        return False
    return ranks.device.type == "cuda" if wanted == "auto" else wanted

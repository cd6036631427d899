"""What a run is made of, built in order from its configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt_core.checkpoint.training_state import load_checkpoint
from gpt_core.config import Config
from gpt_core.distributed import Distributed
from gpt_core.training.accumulation import BatchPlan, plan_batches
from gpt_core.training.compilation import compile_module
from gpt_core.training.fused_loss import LossChoice, choose
from gpt_core.training.initial_model import InitialModel, build_model
from gpt_core.training.losses import Loss
from gpt_core.training.model_with_loss import ModelWithLoss
from gpt_core.training.parallel import check_combination, checkpoint_activations, parallelize, resolve_strategy
from gpt_core.training.precision import autocast, multiply_in_float8, resolve_dtype
from gpt_core.training.recipe import run_of
from gpt_core.training.schedules import Schedule, check_schedules, check_stages
from gpt_core.training.sharded_optimizer import build_optimizer, steps_between_updates
from gpt_core.training.stages import Stages, check_parts
from gpt_core.training.state import Loader, TrainState
from gpt_core.training.warm_start import warm_start


@dataclass(frozen=True)
class Parts:
    """The objects that the loop and its hooks are given, and the choices that were made for them."""

    plan: BatchPlan
    stages: Stages
    splits: Any
    """Loaders `train`, `val`, `test` (may be None) and their `dataset`."""
    tokenizer: Any
    initial: InitialModel
    loss: Loss
    loss_choice: LossChoice
    """How the loss is worked out."""
    dtype: torch.dtype
    autocast: Callable[[], AbstractContextManager]
    """Context for forward and loss."""
    strategy: str
    forward: nn.Module
    """Model and loss, compiled and wrapped: what is called each step."""
    not_compiled: str | None
    """Why torch.compile, where asked for, was not possible."""
    schedule: Schedule
    momentum_schedule: Schedule | None
    weight_decay_schedule: Schedule | None
    state: TrainState


def build_parts(
    config: Config,
    ranks: Distributed,
    *,
    resume: Path | None,
    weights: str | Path | None,
    first_new_id: Callable[[Any, Path | None], int] | None = None,
) -> Parts:
    """Build everything that `config` (`recipe.SCHEMA`) names; collective, every rank calls it.

    resume: the checkpoint folder to continue from. weights: what a new run starts from, None for a new model.
    first_new_id: (the data's tokenizer, the folder of the one that weights were trained with, or None) -> the first id
    that they have not met; without it the data's vocabulary must be theirs.
    Raises ValueError for parts that do not fit each other or the machine, `CheckpointError` for the checkpoint.
    """
    general, training = config.section("general"), config.section("training")
    strategy = resolve_strategy(config.section("parallel"), ranks)
    check_combination(config, strategy)

    # data and model
    plan = plan_batches(training, ranks.world_size)
    stages = Stages(config.section("stages"), training.max_steps)
    check_stages(stages, config.component("scheduler"), config.component("optimizer"))
    loss = config.component("loss").build()  # first, for it may need a GPU that is not there
    splits = config.component("data").build(
        context_length=training.context_length,
        device_batch_size=training.device_batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        seed=general.seed,
    )
    tokenizer = splits.dataset.load_tokenizer()
    if (use_tokenizer := getattr(loss, "use_tokenizer", None)) is not None:  # a loss that asks what tokens spell
        use_tokenizer(tokenizer)
    initial = build_model(
        config.component("model"),
        resume=resume,
        weights=weights,
        vocab_size=splits.dataset.vocab_size,
        context_length=training.context_length,
        first_new_id=(new_from := first_new_of(weights, tokenizer, first_new_id)),
    )
    if training.global_batch_size not in (None, plan.sequences):
        initial.notes.append(
            f"a step takes {plan.sequences} sequences, not {training.global_batch_size}: whole micro-steps of "
            f"{plan.device_batch_size} on {plan.world_size} processes"
        )
    check_parts(stages, initial.model, loss, splits.train)
    model = initial.model if strategy == "fsdp" else initial.model.to(ranks.device)  # fsdp moves it shard by shard

    # what is called each step: the model with its loss, compiled, spread over the processes
    dtype = resolve_dtype(general.dtype, ranks.device)
    in_dtype = partial(autocast, dtype, ranks.device)
    if training.activation_checkpointing:
        checkpoint_activations(model)
    if training.fp8:
        multiply_in_float8(model)
    rows = max(plan.device_batch_size, *stages.config.device_batch_size or (0,)) * plan.context_length
    loss_choice = choose(training.fused_loss, model, loss, rows=rows, dtype=dtype, device=ranks.device)
    forward = ModelWithLoss(model, loss, fused=loss_choice.fused)
    example = partial(first_inputs, splits.train, ranks.device)
    if strategy == "fsdp":  # the module that calls the compiled code is the one that gathers its weights
        forward = parallelize(forward, strategy, ranks, dtype)
    not_compiled = compile_module(forward, general.compile, example=example, autocast=in_dtype)
    if strategy != "fsdp":
        forward = parallelize(forward, strategy, ranks)
    elif not_compiled:  # a forward pass that breaks off leaves weights gathered: there is no going on eagerly
        raise ValueError(f"torch.compile failed under fsdp ({not_compiled}); use general.compile=off")

    # what moves the weights
    optimizer = build_optimizer(config.component("optimizer"), model, strategy, **stages.optimizer_arguments())
    schedule = config.component("scheduler").build(**stages.schedule_arguments())
    momentum, decay = (
        factory and factory.build(max_steps=training.max_steps)
        for factory in map(config.component, ("momentum_scheduler", "weight_decay_scheduler"))
    )
    check_schedules(optimizer, momentum, decay)
    scaler = config.component("scaler").build(grad_clip=training.grad_clip, dtype=dtype, device_type=ranks.device.type)

    torch.manual_seed(general.seed + ranks.rank)  # weights were drawn alike on every rank; dropout is not
    state = TrainState(model, optimizer, scaler, splits.train)
    if resume is not None:
        state.restore(load_checkpoint(resume, model=model, optimizer=optimizer, data=splits.train, distributed=ranks))
        if (waiting := state.step % steps_between_updates(optimizer)) and state.step < training.max_steps:
            initial.notes.append(
                f"the optimizer had kept gradients of {waiting} step(s) before step {state.step}, which the checkpoint "
                "of a run that has ended does not hold: the first updates of what they were for go without them"
            )
    elif general.warm_start_optimizer == "momenta":
        initial.notes.append(warm_start(weights, model=model, optimizer=optimizer, first_new=new_from, ranks=ranks))
    return Parts(
        plan=plan,
        stages=stages,
        splits=splits,
        tokenizer=tokenizer,
        initial=initial,
        loss=loss,
        loss_choice=loss_choice,
        dtype=dtype,
        autocast=in_dtype,
        strategy=strategy,
        forward=forward,
        not_compiled=not_compiled,
        schedule=schedule,
        momentum_schedule=momentum,
        weight_decay_schedule=decay,
        state=state,
    )


def first_new_of(
    weights: str | Path | None, tokenizer: Any, compare: Callable[[Any, Path | None], int] | None
) -> int | None:
    """The first of the tokenizer's ids that the weights have not met, by the tokenizer beside them; None: not asked."""
    if weights is None or compare is None:
        return None
    run = run_of(weights)
    return compare(tokenizer, run / "tokenizer" if run and (run / "tokenizer").is_dir() else None)


def first_inputs(data: Loader, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the model is called with first; `data` stays where it is."""
    position = data.state_dict()
    batch = next(data).to(device)
    data.load_state_dict(position)
    return batch.inputs, batch.targets, getattr(batch, "cu_seqlens", None)

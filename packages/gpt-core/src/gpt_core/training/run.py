"""A whole training run, from a configuration to the last picture: builds the parts, hands them to the loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from gpt_core import scaling
from gpt_core.config import Config
from gpt_core.distributed import Distributed
from gpt_core.monitor import MFUMeter, Sinks
from gpt_core.training import hooks
from gpt_core.training.compilation import eager
from gpt_core.training.config import LoggingConfig
from gpt_core.training.epochs import with_steps_of_epochs
from gpt_core.training.eval_intervals import with_intervals
from gpt_core.training.evaluation import evaluate
from gpt_core.training.fsdp import gathered
from gpt_core.training.loop import train
from gpt_core.training.memory_trial import build_fitting, memory_errors_explained
from gpt_core.training.nonfinite import allowed_in_a_row
from gpt_core.training.parts import Parts, build_parts
from gpt_core.training.recipe import (
    after_restart,
    checkpoint_to_resume,
    choose_run,
    set_up_process,
    weights_to_start_from,
)
from gpt_core.training.reporting import announce, conclude, mfu_meter, recorded, write_records
from gpt_core.training.stage_warm_up import warm_up, warms_up
from gpt_core.training.state import Hook
from gpt_core.training.stop import StopRequest


def run(
    config: Config,
    ranks: Distributed,
    clock: datetime,
    argv: Sequence[str],
    extra_hooks: Sequence[Hook] = (),
    benchmarks: Callable[..., Any] | None = None,
    first_new_id: Callable[[Any, Path | None], int] | None = None,
) -> Path:
    """Train as `config` says (`recipe.SCHEMA`); returns the run's folder. Collective: every rank calls it.

    clock: the run's start, equal on all ranks. argv: the command, for the records. extra_hooks come after ours.
    benchmarks: makes the hook of eval.core_every and eval.chatcore_every, such as gpt_eval.hook.Benchmarks; see
    `benchmark_hooks`. first_new_id: which tokens are new to weights from elsewhere, such as
    gpt_data.tokenizers.first_new_id; see `build_parts`.
    """
    general = config.section("general")
    only_look = config.section("eval").eval_only
    general = after_restart(general, ranks)
    run_dir = choose_run(general, clock)
    resume, weights = checkpoint_to_resume(general, run_dir), weights_to_start_from(general)
    plan = scaling.resolve(config, world_size=ranks.world_size, device_type=ranks.device.type, weights=weights)
    if plan is not None:
        config = plan.config
    config = with_intervals(with_steps_of_epochs(config, ranks.world_size))
    training = config.section("training")

    def build(config: Config) -> Parts:
        set_up_process(general)
        return build_parts(config, ranks, resume=resume, weights=weights, first_new_id=first_new_id)

    config, parts, smaller = build_fitting(config, ranks, build)
    with recorded(run_dir, config, parts.state, ranks) as sinks:
        meter = mfu_meter(config, parts, ranks)
        if ranks.is_main:
            if not (only_look and resume):  # looking at a run does not change what it was
                write_records(run_dir, config, parts, argv, ranks)
            announce(sinks, config, parts, meter, ranks, run_dir.name)
        if ranks.restarts:
            sinks.info(f"started again by the launcher ({ranks.restarts}): goes on from step {parts.state.step}")
        if plan is not None:
            sinks.info(scaling.report(plan))
            for warning in plan.warnings:
                sinks.warning(warning)
        for warning in smaller:
            sinks.warning(warning)
        for note in parts.initial.notes:
            sinks.info(note)
        sinks.info(f"loss: {parts.loss_choice.why}")
        if parts.not_compiled:
            sinks.warning(f"torch.compile is off, running eagerly: {parts.not_compiled}")
        brought = benchmark_hooks(benchmarks, config, parts, sinks, ranks, run_dir)
        train_on = partial(
            train,
            parts.state,
            parts.forward,
            loss=parts.loss,
            schedule=parts.schedule,
            momentum_schedule=parts.momentum_schedule,
            weight_decay_schedule=parts.weight_decay_schedule,
            plan=parts.plan,
            distributed=ranks,
            autocast=parts.autocast,
            max_nonfinite_steps=allowed_in_a_row(training.max_nonfinite_steps, parts.dtype),
            clock_is_read=None if extra_hooks or brought else partial(our_hooks_read_the_clock, config),
        )
        with StopRequest() as stop, memory_errors_explained(parts):
            if not only_look and warms_up(parts, general):
                sinks.info(warm_up(parts, ranks, partial(train_on, stop=stop), stop))
            train_on(
                max_steps=parts.state.step if only_look else training.max_steps,
                hooks=make_hooks(config, parts, meter, sinks, ranks, run_dir, [*extra_hooks, *brought]),
                stop=stop,
            )
        if ranks.is_main:
            conclude(run_dir, sinks, parts)
    return run_dir


def our_hooks_read_the_clock(config: Config, step: int) -> bool:
    """Whether a hook waits for the GPU after so many steps, to report, validate, or save."""
    checkpoint, max_steps = config.section("checkpoint"), config.section("training").max_steps
    if checkpoint.checkpoint_every_hr or config.section("logging").profile_steps:  # which steps is not known beforehand
        return True
    intervals = (config.section("logging").log_every, config.section("eval").eval_every, checkpoint.save_every)
    return step >= max_steps or any(interval and step % interval == 0 for interval in intervals)


def description(config: Config, parts: Parts) -> dict[str, Any]:
    """What every checkpoint says of its run: how to build the model, the phase, the chat template (null: none)."""
    template = getattr(parts.tokenizer, "template", None)
    return {"model": parts.initial.description, "phase": config.section("general").phase, "template": template}


def hooks_of(model: nn.Module, sinks: Sinks, logging: LoggingConfig) -> Sequence[Hook]:
    """What a model wants to tell about itself: `model.hooks(sinks, logging)` where it has such a method."""
    offer = getattr(model, "hooks", None)
    return offer(sinks, logging) if callable(offer) else ()


def benchmark_hooks(
    make: Callable[..., Any] | None, config: Config, parts: Parts, sinks: Sinks, ranks: Distributed, run_dir: Path
) -> list[Any]:
    """The hook that scores the model on benchmarks, where eval.core_every or eval.chatcore_every asks for one.

    make: called with the settings, the tokenizer and the run's surroundings as below. `lend()` is entered by every
    rank around what is asked of `state.model`: it is whole then, not compiled, and in the precision of training.
    """
    wanted = config.section("eval")
    if not wanted.core_every and not wanted.chatcore_every:
        return []
    if make is None:
        raise ValueError("eval.core_every, eval.chatcore_every: this app brings no benchmarks; leave them at 0")

    @contextmanager
    def lend() -> Generator[None]:
        with gathered(parts.forward), eager(parts.state.model), parts.autocast():
            yield

    return [make(wanted, tokenizer=parts.tokenizer, sinks=sinks, ranks=ranks, run_dir=run_dir, lend=lend)]


def make_hooks(
    config: Config,
    parts: Parts,
    meter: MFUMeter,
    sinks: Sinks,
    ranks: Distributed,
    run_dir: Path,
    extra: Sequence[Hook] = (),
) -> list[Hook]:
    """What happens beside the steps, in the order in which it happens: `Save` asks what `Evaluate` found."""
    general, logging, splits = config.section("general"), config.section("logging"), parts.splits
    measure = hooks.Evaluate(
        config.section("eval"),
        sinks,
        partial(evaluate, parts.forward, loss=parts.loss, distributed=ranks, autocast=parts.autocast),
        splits.val,
        splits.test,
        ranks.world_size,
        parts.plan.device_batch_size * parts.plan.context_length,
    )
    follow = [hooks.FollowStages(parts.stages, parts.state.model, parts.loss, splits.train)] if parts.stages else []
    if config.section("eval").eval_only:
        return [*follow, measure]
    made = [
        *follow,
        hooks.Log(logging, sinks, ranks, meter, config.section("training").max_steps),
        *([measure] if config.section("eval").validate else []),
        hooks.Save(config.section("checkpoint"), run_dir, sinks, ranks, description(config, parts)),
        hooks.Sample(
            config.section("generate"),
            sinks,
            ranks,
            parts.tokenizer,
            general.seed,
            gather=partial(gathered, parts.forward),
            autocast=parts.autocast,
        ),
        *hooks_of(parts.state.model, sinks, logging),
        *extra,
    ]
    if logging.profile_steps and ranks.is_main:
        made.append(hooks.Profile(logging.profile_steps, run_dir, sinks))
    return made

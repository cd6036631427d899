"""What a run says of itself: records at the start, the banner, the table and the picture at the end."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import yaml

from gpt_core import monitor
from gpt_core.checkpoint import list_checkpoints
from gpt_core.checkpoint.discovery import step_of
from gpt_core.config import Config
from gpt_core.distributed import Distributed
from gpt_core.monitor import MFUMeter, Sinks
from gpt_core.training import epochs
from gpt_core.training.parts import Parts
from gpt_core.training.recipe import RESUME
from gpt_core.training.scalers import clipping_said
from gpt_core.training.state import TrainState
from gpt_core.training.state_bytes import StateBytes, optimizer_bytes, state_bytes


@contextmanager
def recorded(run_dir: Path, config: Config, state: TrainState, ranks: Distributed) -> Generator[Sinks]:
    """The sinks of the run, closed at the end as completed, interrupted, or failed with the error."""
    general, logging = config.section("general"), config.section("logging")
    # training goes on from a step and records anew what came after it; an evaluation of that step does not
    newest = max((step_of(saved) for saved in list_checkpoints(run_dir)), default=0)
    kept = max(state.step, newest) if config.section("eval").eval_only else state.step
    sinks = monitor.open_sinks(
        run_dir,
        run_name=run_dir.name,
        max_steps=config.section("training").max_steps,
        rank=ranks.rank,
        resume_step=kept or None,
        style=logging.style,
        log_save_interval=logging.log_save_interval,
        enable_tensorboard=logging.enable_tensorboard,
        enable_wandb=logging.enable_wandb,
        project_name=general.project_name,
        run_description=general.run_description or None,
    )
    try:
        yield sinks
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError):  # a full disk: the error that ended the run says more
            sinks.close(status, ranks.explain(error) if ranks.is_main else None)
        raise
    sinks.close("interrupted" if state.status == "interrupted" else "completed")


def write_records(run_dir: Path, config: Config, parts: Parts, argv: Sequence[str], ranks: Distributed) -> None:
    """config.yaml, command.sh, manifest.json, and the tokenizer, so that the run folder can be used by itself."""
    dataset, processes = parts.splits.dataset, parts.plan.world_size
    launcher = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else []  # on one node
    monitor.write_run_records(
        run_dir,
        config_yaml=_repeatable(config, run_dir / "config.yaml"),
        argv=["uv", "run", *launcher, *argv],
        data={"path": dataset.path and str(dataset.path), "name": dataset.name, "digest": dataset.digest},
        extra={"phase": config.section("general").phase, **({"launch": ranks.launch} if ranks.launch else {})},
    )
    parts.tokenizer.save(run_dir / "tokenizer")


def _repeatable(config: Config, earlier: Path) -> str:
    """The configuration of the whole run: on a resume, `init_from` stays what it was when the run began."""
    text = config.to_yaml()
    if config.section("general").init_from not in RESUME or not earlier.exists():
        return text
    tree, first = yaml.safe_load(text), yaml.safe_load(earlier.read_text(encoding="utf-8"))
    tree["general"]["init_from"] = first["general"]["init_from"]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def mfu_meter(config: Config, parts: Parts, ranks: Distributed) -> MFUMeter:
    """Throughput and model FLOPs utilization of this run's steps."""
    device, logging, model = ranks.device, config.section("logging"), parts.state.model
    architecture: Any = model.config
    return MFUMeter(
        architecture,
        tokens_per_step=parts.plan.tokens,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        precision=monitor.compute_precision(parts.dtype, device.type),
        world_size=ranks.world_size,
        peak_tflops=logging.peak_tflops,
        sparse=logging.use_sparse_specs,
    )


def announce(sinks: Sinks, config: Config, parts: Parts, meter: MFUMeter, ranks: Distributed, run_name: str) -> None:
    """The banner, and the `start` event from which run.json is made."""
    training, state, plan = config.section("training"), parts.state, parts.plan
    planned = planned_bytes(parts)
    info = monitor.StartupInfo(
        run_name=run_name,
        model_config=getattr(state.model, "config", None),
        parameters=monitor.parameter_counts(state.model),
        mfu=meter,
        hardware=monitor.hardware_record(ranks.device),
        device_batch_size=plan.device_batch_size,
        accumulation_steps=plan.micro_steps,
        max_steps=training.max_steps,
        world_size=ranks.world_size,
        device=str(ranks.device),
        dtype=str(parts.dtype).removeprefix("torch."),
        compile=config.section("general").compile != "off" and parts.not_compiled is None,
        strategy=parts.strategy,
        state_bytes=planned.record(),
        state_sentence=planned.sentence(parts.strategy),
        optimizer=monitor.optimizer_record(state.optimizer),
        training={
            **config.component("optimizer").kwargs,
            "schedule": config.component("scheduler").path.rpartition(".")[2],
            **config.component("scheduler").kwargs,
            **{
                name: factory.path.rpartition(".")[2]
                for name in ("momentum_scheduler", "weight_decay_scheduler")
                if (factory := config.component(name)) is not None
            },
            "grad_clip": training.grad_clip,
        },
        config=config.safe_tree,
        start_step=state.step,
    )
    sinks.event("start", info.record())
    sinks.info(monitor.startup_report(info))
    if (clipping := clipping_said(state.scaler, state.optimizer)) is not None:
        sinks.info(clipping)
    if (length := epochs.said(config)) is not None:
        sinks.info(length)
    for note in getattr(parts.splits, "notes", ()):
        sinks.info(note)


def planned_bytes(parts: Parts) -> StateBytes:
    plan = parts.plan
    return state_bytes(parts.state.model, parts.state.optimizer, parts.strategy, plan.world_size, plan.micro_steps)


def conclude(run_dir: Path, sinks: Sinks, parts: Parts) -> None:
    """Final figures, and the loss curve as a picture, of whatever was measured."""
    state = parts.state
    if not state.step and state.val_step < 0:
        sinks.info("no step was taken and nothing evaluated: no figures, no picture")
        return
    figures = monitor.summarize(monitor.read_run(run_dir), status=state.status)
    figures["optimizer_bytes"] = optimizer_bytes(state.optimizer)  # of this rank, and by the formula
    figures["optimizer_bytes_planned"] = planned_bytes(parts).optimizer
    sinks.summary(figures)
    try:
        sinks.artifact(monitor.loss_curve(run_dir), "loss")
    except ImportError as error:  # matplotlib is an extra; a finished run does not fail for want of a picture
        sinks.warning(str(error))

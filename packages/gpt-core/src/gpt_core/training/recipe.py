"""What a training app is configured with, and where its run goes."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from gpt_core.checkpoint import CheckpointError, find_checkpoint, list_checkpoints, newest_run
from gpt_core.checkpoint.discovery import listed, runs_in
from gpt_core.config import Component, expand
from gpt_core.distributed import Distributed
from gpt_core.scaling.config import ScalingConfig
from gpt_core.training.config import (
    CheckpointConfig,
    EvalConfig,
    GeneralConfig,
    LoggingConfig,
    ParallelConfig,
    SampleConfig,
    TrainingConfig,
)
from gpt_core.training.stages import StagesConfig

SCHEMA: Mapping[str, type | Component] = {
    "general": GeneralConfig,
    "parallel": ParallelConfig,
    "data": Component(runtime=frozenset({"context_length", "device_batch_size", "rank", "world_size", "seed"})),
    "model": Component(runtime=frozenset({"vocab_size", "context_length"})),
    "loss": Component(),
    "optimizer": Component(args=1, runtime=frozenset({"zero", "process_group"})),
    "scheduler": Component(runtime=frozenset({"max_steps"})),
    "momentum_scheduler": Component(runtime=frozenset({"max_steps"}), optional=True),
    "weight_decay_scheduler": Component(runtime=frozenset({"max_steps"}), optional=True),
    "scaler": Component(runtime=frozenset({"grad_clip", "dtype", "device_type"})),
    "training": TrainingConfig,
    "scaling": ScalingConfig,
    "stages": StagesConfig,
    "eval": EvalConfig,
    "checkpoint": CheckpointConfig,
    "logging": LoggingConfig,
    "generate": SampleConfig,
}

RESUME = ("resume", "latest", "best")
GPT2_SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


def set_up_process(general: GeneralConfig) -> None:
    """Seed torch (all devices), NumPy and Python, equal on every rank so that every rank draws the same weights."""
    torch.manual_seed(general.seed)
    np.random.seed(general.seed % 2**32)
    random.seed(general.seed)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    if general.threads is not None:
        torch.set_num_threads(general.threads)


def after_restart(general: GeneralConfig, ranks: Distributed) -> GeneralConfig:
    """For processes that their launcher has started again: continue the run that they had begun. Collective.

    Known by the launch that its manifest names, under whatever name. It is resumed if it has saved since, else begun
    anew in the same folder.
    """
    if not ranks.restarts:
        return general
    run_dir, saved = ranks.broadcast(_begun(general, ranks.launch) if ranks.is_main else None)
    if run_dir is None:
        return general
    name = str(run_dir.relative_to(expand(general.out_dir)))
    return replace(general, run_name=name, init_from="resume" if saved else general.init_from)


def _begun(general: GeneralConfig, launch: str | None) -> tuple[Path | None, bool]:
    """The newest run of a launch in this phase, and whether it has saved a checkpoint since."""
    out_dir = Path(expand(general.out_dir))
    named = [] if general.run_name is None else [out_dir / expand(general.run_name) / "manifest.json"]
    manifests = [path for path in {*named, *out_dir.glob("*/manifest.json")} if path.exists()]
    for path in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        attempts = [each for each in [*manifest.get("earlier", []), manifest] if each.get("launch") == launch]
        phase = manifest.get("phase", "pretraining")  # a launch may pretrain, and mid-train what came of it
        if attempts and launch is not None and phase == general.phase:
            begun = datetime.fromisoformat(attempts[0]["time"]).timestamp()
            saves = list_checkpoints(path.parent)
            return path.parent, any(save.stat().st_mtime >= begun for save in saves)
    return None, False


def choose_run(general: GeneralConfig, clock: datetime) -> Path:
    """The run's folder: the one named, a new one `<project_name>-<time>`, or on resume the newest of the project.

    Raises `CheckpointError` where there is nothing to resume, and ValueError where a new run would overwrite another.
    """
    out_dir = Path(expand(general.out_dir))
    if general.run_name is None:
        if general.init_from in RESUME:
            return newest_run(out_dir, prefix=f"{general.project_name}-")
        return out_dir / f"{general.project_name}-{clock:%Y%m%d-%H%M%S}"
    run_dir = out_dir / expand(general.run_name)
    if general.init_from not in RESUME and list_checkpoints(run_dir):
        raise ValueError(
            f"{run_dir} already holds the checkpoints of another run: continue it with --init_from=resume, or "
            f"choose another "
            "--general.run_name"
        )
    return run_dir


def checkpoint_to_resume(general: GeneralConfig, run_dir: Path) -> Path | None:
    """The checkpoint folder that `init_from` asks to continue from, None for a new run."""
    if general.init_from not in RESUME:
        return None
    return find_checkpoint(run_dir, "best" if general.init_from == "best" else "latest")


def weights_to_start_from(general: GeneralConfig) -> str | Path | None:
    """What `gpt_core.models.convert.load_pretrained` reads for a new run; None for a new model or a resumed run.

    A run, given by its folder or its name in `out_dir`, stands for its latest checkpoint; hf:NAME for a name on the
    Hub. Raises `CheckpointError` for anything that does not exist.
    """
    source = general.init_from
    if source == "scratch" or source in RESUME:
        return None
    if source.startswith("hf:"):
        return source.removeprefix("hf:")
    out_dir = Path(expand(general.out_dir))
    for path in (Path(expand(source)), out_dir / source):
        if (path / "checkpoints").is_dir():
            return find_checkpoint(path)
        if path.exists():
            return path
    if source in GPT2_SIZES:
        return source
    runs = listed([run.name for run in runs_in(out_dir)])
    raise CheckpointError(
        f"init_from={source!r} is neither scratch, resume, latest, best, {', '.join(GPT2_SIZES)}, hf:NAME, nor a run, "
        f"checkpoint or model that exists; runs with checkpoints in {out_dir}: {runs}"
    )


def run_of(weights: str | Path | None) -> Path | None:
    """The folder of the run that a checkpoint folder belongs to; None for other weights and for none."""
    folder = Path(weights or "")
    inside = (folder / "meta.json").is_file() and folder.resolve().parent.name == "checkpoints"
    return folder.resolve().parent.parent if inside else None

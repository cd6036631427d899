"""The sinks of a run: the files of its folder, the console, and the trackers that were asked for."""

from pathlib import Path
from typing import TextIO

from .console import ConsoleSink, ConsoleStyle
from .jsonl import JsonlSink
from .run_json import RunJsonSink
from .sinks import Sink, Sinks
from .summary import SummarySink
from .tensorboard_sink import TensorBoardSink
from .text_log import TextLogSink
from .wandb_sink import WandbSink


def open_sinks(
    run_dir: str | Path,
    *,
    run_name: str,
    max_steps: int,
    rank: int = 0,
    resume_step: int | None = None,
    style: ConsoleStyle = "compact",
    log_save_interval: int = 100,
    enable_tensorboard: bool = False,
    enable_wandb: bool = False,
    project_name: str = "gpt",
    run_description: str | None = None,
    stream: TextIO | None = None,
) -> Sinks:
    """Open the sinks of a run. Ranks other than 0 only get a console and a text log, both for warnings.

    `resume_step`: the step of the checkpoint this run continues from; what was recorded beyond it is removed. None: the
    run begins, and metrics of an earlier attempt in the same folder are renamed to `metrics.1.jsonl` and so on.
    An optional sink that cannot be opened raises here, before any training: a missing extra is an error that names
    it, not a run without the tracking that was asked for.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    console = ConsoleSink(max_steps, start_step=resume_step or 0, style=style, rank=rank, stream=stream)
    sinks: list[Sink] = [console, TextLogSink(run_dir, rank=rank)]
    if rank != 0:
        return Sinks(sinks)
    if resume_step is None:
        _set_aside(run_dir / "metrics.jsonl")
    sinks += [
        JsonlSink(run_dir / "metrics.jsonl", resume_step=resume_step),
        RunJsonSink(run_dir, save_interval=log_save_interval),
        SummarySink(run_dir),
    ]
    if enable_tensorboard:
        sinks.append(TensorBoardSink(run_dir, resume_step=resume_step))
    if enable_wandb:
        sinks.append(WandbSink(run_dir, project=project_name, name=run_name, notes=run_description))
    return Sinks(sinks)


def _set_aside(path: Path) -> None:
    """An attempt that died before its first checkpoint is no part of the run that starts now, but it is not deleted."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    path.rename(aside)

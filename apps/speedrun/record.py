"""A line of docs/records.md from the finished runs of one configuration with several seeds.

uv run apps/speedrun record out/speedrun-68-a out/speedrun-68-b out/speedrun-68-c --target 3.28
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from student import p_below


class Finished(NamedTuple):
    """The figures of one run."""

    steps: int
    tokens: int
    seconds: float
    """The clock of the record: of the steps alone, without validation and compilation."""
    val_loss: float
    where: str
    """Device and number of processes."""


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    print(line([read(Path(run)) for run in options.runs], options.target, options.name or Path(options.runs[0]).name))
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("uv run apps/speedrun record", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("runs", nargs="+", help="folders of finished runs that differ in nothing but the seed")
    made.add_argument("--target", type=float, default=3.28, help="validation loss to be under (default: 3.28)")
    made.add_argument("--name", help="what to call them (default: the first folder's name)")
    return made


def read(run_dir: Path) -> Finished:
    """ValueError for a folder without a run, or whose run has not ended."""
    file = run_dir / "metrics.jsonl"
    if not file.exists():
        raise ValueError(f"{run_dir} holds no run: it has no metrics.jsonl")
    rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()]
    start = next(row for row in rows if row.get("event") == "start")
    measured = [row for row in rows if "val/loss" in row and "event" not in row]
    trained = [row for row in rows if "train/tokens" in row and "event" not in row]
    if not measured or not trained or measured[-1]["step"] != start["max_steps"]:
        raise ValueError(f"{run_dir}: the run has not come to its end, step {start['max_steps']}")
    last, hardware = measured[-1], start.get("hardware", {})
    where = f"{start.get('world_size', 1)} x {hardware.get('gpu_name') or hardware.get('cpu_name')}"
    return Finished(last["step"], trained[-1]["train/tokens"], last["val/train_time_s"], last["val/loss"], where)


def line(runs: Sequence[Finished], target: float, name: str) -> str:
    """A row of Markdown. ValueError for runs of different lengths."""
    if len({(run.steps, run.tokens) for run in runs}) > 1:
        raise ValueError(f"these runs are of {sorted({run.steps for run in runs})} steps: one line is of equal ones")
    losses: list[Any] = [run.val_loss for run in runs]
    p = p_below(losses, target)
    spread = f" (sd {stdev(losses):.4f})" if len(runs) > 1 else ""
    shown = "n/a (one run)" if math.isnan(p) else f"{p:.2g}"
    return (
        f"| {name} | {runs[0].where} | {fmean(run.seconds for run in runs):.1f} s | {runs[0].steps} | "
        f"{runs[0].tokens / 1e6:.1f} M | {fmean(losses):.4f}{spread} | {len(runs)} | {shown} |"
    )

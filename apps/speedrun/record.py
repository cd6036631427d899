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
    seed: int
    config: dict[str, Any]
    """What was run, without the seed and the names that runs of one configuration may have."""


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
    start = [row for row in rows if row.get("event") == "start"][-1]  # of a resumed run the one that ended it
    measured = [row for row in rows if "val/loss" in row and "event" not in row]
    trained = [row for row in rows if "train/tokens" in row and "event" not in row]
    if not measured or not trained or measured[-1]["step"] != start["max_steps"]:
        raise ValueError(f"{run_dir}: the run has not come to its end, step {start['max_steps']}")
    last, hardware = measured[-1], start.get("hardware", {})
    where = f"{start.get('world_size', 1)} x {hardware.get('gpu_name') or hardware.get('cpu_name')}"
    general = dict(start["config"]["general"])
    seed = general.pop("seed")
    for name in ("run_name", "run_description", "out_dir", "init_from"):
        general.pop(name, None)
    return Finished(
        steps=last["step"],
        tokens=trained[-1]["train/tokens"],
        seconds=last["val/train_time_s"],
        val_loss=last["val/loss"],
        where=where,
        seed=seed,
        config={**start["config"], "general": general},
    )


def line(runs: Sequence[Finished], target: float, name: str) -> str:
    """A row of Markdown. ValueError for runs that differ in more than the seed, or have one in common."""
    for what, values in (
        ("steps", [run.steps for run in runs]),
        ("tokens", [run.tokens for run in runs]),
        ("hardware", [run.where for run in runs]),
    ):
        if len(set(values)) > 1:
            raise ValueError(f"these runs differ in {what} ({', '.join(map(str, values))}): one line is of equal ones")
    if other := next((run for run in runs if run.config != runs[0].config), None):
        keys = sorted(key for key in other.config if other.config[key] != runs[0].config.get(key))
        raise ValueError(f"these runs differ in their configurations ({', '.join(keys)}): one line is of equal ones")
    if len({run.seed for run in runs}) < len(runs):
        raise ValueError(f"seeds are {[run.seed for run in runs]}: every run needs one of its own, or it counts twice")
    losses: list[Any] = [run.val_loss for run in runs]
    p = p_below(losses, target)
    spread = f" (sd {stdev(losses):.4f})" if len(runs) > 1 else ""
    shown = "n/a (one run)" if math.isnan(p) else f"{p:.2g}"
    return (
        f"| {name} | {runs[0].where} | {fmean(run.seconds for run in runs):.1f} s | {runs[0].steps} | "
        f"{runs[0].tokens / 1e6:.1f} M | {fmean(losses):.4f}{spread} | {len(runs)} | {shown} |"
    )

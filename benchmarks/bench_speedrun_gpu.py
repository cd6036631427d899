"""apps/speedrun beside modded-nanogpt's own script, on the GPUs of this machine: time of a step in every stage.

    python benchmarks/bench_speedrun_gpu.py --modded DIR --data DIR [--config speedrun-68] [--gpus 1] [--repeats 3]

Both take the same number of steps in each stage on the same token files, in turn; both compile first and leave that out
of their clocks. The peer runs from a copy of its script in which only lengths are other numbers (steps, validation).
Clocks are read where both have waited for the GPU: at validations, of which there is one at every end of a stage.
--data holds data/fineweb10B, as the peer wants it and `uv run apps/prepare fineweb10B` makes it.

Figures: `step_ratio` by stage (ours over theirs), `peak_gb`; with --profile the share of our step by kernel.
Without a GPU there is nothing to measure, and the script says so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

from _bench import finish, median, table

ROOT = Path(__file__).parents[1]
STAGES = ("1", "2", "3", "extension")
VALIDATION = 2_097_152
"""Tokens of a validation: one round of the peer's."""

Run = tuple[list[float], float]
"""Milliseconds per step of each stage, and GB allocated at most."""


def main() -> None:
    options = parser().parse_args()
    if options.show:
        print(shares(Path(options.show)))
        return
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here: step times of the speedrun are not measured")
    if options.modded is None or options.data is None:
        raise SystemExit("give --modded (a checkout of modded-nanogpt) and --data (the folder above data/fineweb10B)")
    sides: dict[str, list[Run]] = {"ours": [], "modded": []}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(options.repeats):
            sides["modded"].append(theirs(options, Path(folder) / f"modded{repeat}"))
            sides["ours"].append(ours(options, Path(folder) / f"ours{repeat}"))
        if options.profile:
            print(shares(profiled(options, Path(folder) / "profiled")))
    steps = {
        name: [median(times) for times in zip(*(run[0] for run in runs), strict=True)] for name, runs in sides.items()
    }
    peaks = {name: max(run[1] for run in runs) for name, runs in sides.items()}
    ratios = [a / b for a, b in zip(steps["ours"], steps["modded"], strict=True)]
    rows = list(zip(STAGES, steps["ours"], steps["modded"], ratios, strict=True))
    print(table(["stage", "ours, ms per step", "modded, ms per step", "ratio"], rows))
    print(f"\npeak GB allocated: ours {peaks['ours']:.1f}, modded {peaks['modded']:.1f}")
    finish(**{f"step_ratio_{name}": ratio for name, ratio in zip(STAGES, ratios, strict=True)}, peak_gb=peaks["ours"])


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--modded", type=Path, help="checkout of modded-nanogpt, at the record of --config")
    made.add_argument("--data", type=Path, help="folder that holds data/fineweb10B")
    made.add_argument("--config", default="speedrun-68")
    made.add_argument("--gpus", type=int, default=1, choices=(1, 2, 4, 8))
    made.add_argument("--steps", type=int, default=30, help="of each stage; a third as many of the extension")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument(
        "--profile", action="store_true", help="also record our steps, and print the share of each kernel"
    )
    made.add_argument("--show", help="only print the shares of a profile.json of an earlier run")
    return made


def ends(steps: int) -> list[int]:
    """Steps at which the stages end."""
    return [steps, 2 * steps, 3 * steps, 3 * steps + extension(steps)]


def extension(steps: int) -> int:
    return max(1, steps // 3)


def ours(options: argparse.Namespace, out: Path, *more: str) -> Run:
    total = ends(options.steps)[-1]
    arguments = [f"--training.max_steps={total}", f"--stages.extension_steps={extension(options.steps)}"]
    arguments += [f"--eval.eval_every={options.steps}", f"--eval.eval_iters={VALIDATION // 262_144}", *more]
    arguments += [f"--general.out_dir={out}", "--general.run_name=run", "--logging.log_every=1000000"]
    arguments += [f"--data.module_kwargs.dataset={options.data / 'data/fineweb10B'}"]
    launched([*torchrun(options.gpus), str(ROOT / "apps/speedrun"), options.config, *arguments], ROOT)
    rows = [json.loads(row) for row in (out / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    clock = {row["step"]: 1e3 * row["val/train_time_s"] for row in rows if "val/loss" in row}
    peak = max(row.get("memory/max_allocated_gb", 0.0) for row in rows)
    return per_stage(clock, options.steps), peak


def theirs(options: argparse.Namespace, folder: Path) -> Run:
    folder.mkdir()
    for file in options.modded.glob("*.py"):
        shutil.copy(file, folder)
    script = folder / "train_gpt.py"
    script.write_text(shortened(script.read_text(encoding="utf-8"), options.steps), encoding="utf-8")
    printed = launched([*torchrun(options.gpus), str(script)], folder, DATA_PATH=str(options.data))
    return read_log(printed, options.steps)


def shortened(script: str, steps: int) -> str:
    """The peer's script with other lengths. SystemExit where it has not the lines that say them."""
    numbers = {
        "num_scheduled_iterations": 3 * steps,
        "num_extension_iterations": extension(steps),
        "val_loss_every": steps,
        "val_tokens": VALIDATION,
    }
    for name, value in numbers.items():
        script, found = re.subn(rf"^(\s+{name}: int = )\d+", rf"\g<1>{value}", script, flags=re.MULTILINE)
        if found != 1:
            raise SystemExit(
                f"train_gpt.py says {name} {found} times, not once: use modded-nanogpt at record 68 or later"
            )
    return script


def read_log(printed: str, steps: int) -> Run:
    """Step times and peak of the peer's own lines."""
    lines = re.findall(r"^step:(\d+)/\d+ val_loss:\S+ train_time:(\d+)ms", printed, re.MULTILINE)
    peak = re.search(r"peak memory allocated: (\d+) MiB", printed)
    clock = {int(step): float(time) for step, time in lines}
    return per_stage(clock, steps), int(peak[1]) * 2**20 / 1e9 if peak else 0.0


def per_stage(clock: dict[int, float], steps: int) -> list[float]:
    """Milliseconds per step of each stage, from the clock at its beginning and end."""
    edges = [0, *ends(steps)]
    missing = [edge for edge in edges if edge not in clock]
    if missing:
        raise SystemExit(f"no validation at step {missing[0]}; there are some at {sorted(clock)}")
    return [(clock[b] - clock[a]) / (b - a) for a, b in pairwise(edges)]


def profiled(options: argparse.Namespace, out: Path) -> Path:
    ours(options, out, "--logging.profile_steps=10")
    return out / "run/report/profile.json"


def shares(trace: Path, most: int = 20) -> str:
    """The kernels that take most of the GPU's time in a trace of torch.profiler."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    spent: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "kernel":
            spent[event["name"].split("(")[0][:80]] += event["dur"]
    total = sum(spent.values())
    if not total:
        raise SystemExit(f"{trace} has no kernels: it is of a run without a GPU")
    largest = sorted(spent.items(), key=lambda item: -item[1])[:most]
    return table(["kernel", "share, %"], [[name, 100 * time / total] for name, time in largest])


def torchrun(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def launched(command: list[str], cwd: Path, **more: str) -> str:
    """What the command printed. SystemExit with its last lines if it failed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"{command[-1]} failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))
    return done.stdout


if __name__ == "__main__":
    main()

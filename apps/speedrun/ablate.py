"""What each trick is worth: runs of a recipe without one of its switches, or of a bare one with one of them.

uv run apps/speedrun ablate desk --leave-one-out --seeds 5 --steps 100    again, after an interruption: goes on
uv run apps/speedrun ablate desk --add-one --switches smear,backout --dry-run
uv run apps/speedrun ablate desk --leave-one-out --seeds 5 --steps 100 --report --markdown docs/ablation.md
Keys of the configuration (--data.module_kwargs.dataset ...) go to every run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ablation_report
import torch
from ablation_plan import Plan, Variant, arguments, make_plan, run_name
from training import APP, CONFIGS

from gpt_core.checkpoint import list_checkpoints
from gpt_core.config import load_config
from gpt_core.monitor.strict_json import write_atomic
from gpt_core.training.own_process import run_app
from gpt_core.training.recipe import SCHEMA


def main(argv: Sequence[str]) -> int:
    options, overrides = parser().parse_known_args(argv)
    config = load_config([options.config, *overrides], schema=SCHEMA, config_dirs=[CONFIGS])
    tree = config.tree
    names = options.switches.split(",") if options.switches else None
    mode = "leave-one-out" if options.leave_one_out else "add-one"
    plan = make_plan(options.config, overrides, tree, mode=mode, seeds=options.seeds, steps=options.steps, names=names)
    folder = Path(options.out or f"out/ablation-{Path(options.config).stem}-{mode}")
    print(describe(plan, folder, tree))
    if options.dry_run:
        return 0
    keep(plan, folder)
    if not options.report:
        try:
            run_all(plan, folder, tree, options.processes)
        except KeyboardInterrupt:
            print(f"interrupted, {len(results(plan, folder))} of {len(plan.runs())} runs are done: repeat the command")
            raise
    print(ablation_report.write(plan, folder, results(plan, folder), clock_of(tree)))
    print(f"wrote {folder}/report.md and, of what can be compared, {folder}/ablation.png")
    if options.markdown:
        ablation_report.publish(plan, folder, Path(options.markdown))
        print(f"wrote the table into {options.markdown}")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("uv run apps/speedrun ablate", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("config", help="configuration with everything on (desk, speedrun-68, ...)")
    how = made.add_mutually_exclusive_group(required=True)
    how.add_argument("--leave-one-out", action="store_true", help="the recipe without each switch")
    how.add_argument("--add-one", action="store_true", help="the recipe with all switches off but each")
    add("--seeds", type=int, default=5, help="runs of every variant, paired by seed (default: 5)")
    add("--steps", type=int, help="of every run; schedules shrink with it (default: those of the configuration)")
    add("--switches", help="some only, with commas between them; default: all that apply")
    add("--processes", type=int, default=1, help="of every run, by torchrun (default: 1)")
    add("--out", help="folder of runs and report (default: out/ablation-CONFIG-MODE)")
    add("--report", action="store_true", help="run nothing, report on what is done")
    add("--markdown", metavar="FILE", help="also put table and picture into this file, between its lines for them")
    add("--dry-run", action="store_true", help="print plan and cost, run nothing")
    return made


def results(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Of all runs that are done."""
    found = (read_result(folder, variant, seed) for variant, seed in plan.runs())
    return [result for result in found if result is not None]


def clock_of(tree: dict[str, Any]) -> str:
    """What "equal time" goes by: the steps' own on a GPU, CPU time where other work may share the processors."""
    device = tree["general"]["device"]
    gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    return "train_seconds" if gpu else "cpu_seconds"


def describe(plan: Plan, folder: Path, tree: dict[str, Any]) -> str:
    """What will be run, what is done, and what the rest costs where a finished run tells."""
    runs = plan.runs()
    done = [result for variant, seed in runs if (result := read_result(folder, variant, seed))]
    steps = sum(variant.steps for variant, _ in runs)
    lines = [
        f"{plan.mode} of {plan.config}: {len(plan.switches)} switches, {len(plan.variants)} variants x {plan.seeds} "
        f"seeds = {len(runs)} runs, {steps} steps in all; {len(done)} done ({folder})",
        *(f"  {each.name:<32} {each.steps:>6} steps  off: {', '.join(each.off) or '-'}" for each in plan.variants),
    ]
    if done:
        per_step = sum(result["wall_seconds"] for result in done) / sum(result["steps"] for result in done)
        left = per_step * (steps - sum(result["steps"] for result in done))
        lines.append(f"cost: {per_step:.2f} s per step so far, {left / 60:.0f} minutes left")
    else:
        lines.append("cost: known after the first run")
    return "\n".join(lines)


def keep(plan: Plan, folder: Path) -> None:
    """Write the plan into its folder. ValueError where the folder is another plan's (more seeds are the same plan)."""
    file = folder / "plan.json"
    if file.exists():
        old, new = json.loads(file.read_text(encoding="utf-8")), json.loads(plan.to_json())
        different = [key for key in new if key != "seeds" and new[key] != old.get(key)]
        if different:
            key = different[0]
            raise ValueError(
                f"{folder} holds another ablation ({key} was {old.get(key)!r}, is {new[key]!r}): repeat its command to "
                "go on with it, or give --out another folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, plan.to_json())


def run_all(plan: Plan, folder: Path, tree: dict[str, Any], processes: int) -> None:
    """Every run that is not done, each in a process and a folder of its own."""
    runs = plan.runs()
    for number, (variant, seed) in enumerate(runs, 1):
        if read_result(folder, variant, seed):
            continue
        print(f"[{number}/{len(runs)}] {run_name(variant, seed)}", flush=True)
        result = run_one(plan, variant, seed, folder, tree, processes)
        print(f"    val_loss {result['val_loss']:.4f}, {result['wall_seconds']:.0f} s", flush=True)


def run_one(
    plan: Plan, variant: Variant, seed: int, folder: Path, tree: dict[str, Any], processes: int
) -> dict[str, Any]:
    """Run, or go on with, one of the plan; its result is written when it is whole. ValueError with its last lines."""
    run_dir = folder / "runs" / run_name(variant, seed)
    command = arguments(plan, variant, seed, tree, folder / "runs")
    if list_checkpoints(run_dir):
        command.append("--general.init_from=resume")
    started = time.monotonic()
    status = run_app(APP, command, run_dir, processes)
    if status:
        tail = "\n".join((run_dir / "printed.txt").read_text(encoding="utf-8").splitlines()[-5:])
        raise ValueError(f"{run_dir.name} ended with status {status}; see {run_dir}/printed.txt:\n{tail}")
    result = result_of(run_dir, variant, seed, time.monotonic() - started)
    shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)  # its figures are what it was for
    return result


def result_of(run_dir: Path, variant: Variant, seed: int, seconds: float) -> dict[str, Any]:
    """The figures of a finished run, also written beside it."""
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = next((row for row in map(json.loads, reversed(lines)) if "val/loss" in row), {"step": 0})
    if last["step"] != variant.steps:
        raise ValueError(f"{run_dir.name} ended at step {last['step']} of {variant.steps}: run the command again")
    result = {
        "name": variant.name,
        "seed": seed,
        "steps": variant.steps,
        "val_loss": last["val/loss"],
        "bits_per_byte": last.get("val/bits_per_byte"),
        "train_seconds": last["val/train_time_s"],
        "cpu_seconds": last["val/train_cpu_s"],
        "wall_seconds": seconds,
        "where": where(run_dir),
    }
    write_atomic(run_dir / "result.json", json.dumps(result))
    return result


def where(run_dir: Path) -> str:
    """Machine, threads, torch and revision, as the run recorded them."""
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    hardware, revision = manifest["hardware"], manifest["git"]["revision"]
    machine = hardware["gpu_name"] or f"{hardware['cpu_name']}, {hardware['torch_threads']} thread(s)"
    return f"{machine}, torch {manifest['versions']['torch']}, " + (
        f"revision {revision[:12]}" if revision else "no git"
    )


def read_result(folder: Path, variant: Variant, seed: int) -> dict[str, Any] | None:
    """Of a run that is done; None for one that is not, or that had another number of steps."""
    file = folder / "runs" / run_name(variant, seed) / "result.json"
    if not file.exists():
        return None
    result = json.loads(file.read_text(encoding="utf-8"))
    return result if result["steps"] == variant.steps else None

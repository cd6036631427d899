"""Train models of several depths with the same compute, for several budgets of compute.

uv run apps/scaling sweep depth --depths 6,8,10,12,14 --budgets 1e18,3e18,6e18 --dry-run    plan and cost
uv run apps/scaling sweep scaling-desk --depths 1,2,3,4,5 --budgets 6e10,2e11,6e11          again: goes on
Keys of the configuration (--data.module_kwargs.dataset ...) go to every run, which is `apps/pretrain --depth D
--target-flops C`. A run that fails is reported, and the others go on. Results: OUT/results.csv.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from measurement import Measurement, read_results, write_results
from run_logs import Unusable, from_run
from scaling_grid import PRETRAIN, Cell, Study, arguments, check_overrides, check_rows, describe, keep, load, plan_all

from gpt_core import scaling
from gpt_core.checkpoint import list_checkpoints
from gpt_core.monitor import RunError
from gpt_core.training.own_process import last_printed, run_app


def main(argv: Sequence[str]) -> int:
    options, overrides = parser().parse_known_args(argv)
    check_overrides(overrides)
    study = Study(options.config, tuple(overrides), options.budgets, options.depths, options.seeds)
    folder = Path(options.out or f"out/scaling-{Path(options.config).stem}")
    data = scaling.Data(options.vocab_size, None) if options.dry_run and options.vocab_size else None
    planned = plan_all(study, options.processes, device_type(study), data)
    check_rows(planned, results(folder), folder)
    print(describe(planned, results(folder), options.flop_rate, folder), flush=True)
    if options.dry_run:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another sweep is writing to {folder}: wait for it, or end it") from None
        keep(study, folder)
        failed = run_all(study, planned, folder, options)
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    print(f"{folder}/results.csv: {len(results(folder))} runs; next: uv run apps/scaling fit --logs {folder}")
    return 1 if failed else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("uv run apps/scaling sweep", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("config", nargs="?", default="depth", help="configuration of apps/scaling or apps/pretrain (default: depth)")
    add("--depths", type=wholes, default=(6, 8, 10, 12, 14), help="with commas (default: 6,8,10,12,14)")
    add("--budgets", type=amounts, default=(1e18, 3e18, 6e18), help="FLOPs (default: 1e18,3e18,6e18)")
    add("--seeds", type=wholes, default=(1,), help="seeds of every depth and budget (default: 1)")
    add("--out", help="folder of runs and results (default: out/scaling-CONFIG)")
    add("--processes", type=int, default=1, help="of every run, by torchrun (default: 1)")
    add("--flop-rate", "--flop_rate", type=amount, metavar="R", help="FLOP/s of all processes, for the estimated cost")
    add("--dry-run", "--dry_run", action="store_true", help="print plan and cost, run nothing")
    add("--vocab-size", "--vocab_size", type=int, metavar="V", help="with --dry-run: plan without the data")
    add("--keep-checkpoints", "--keep_checkpoints", action="store_true", help="default: a finished run's are removed")
    return made


def amount(text: str) -> float:
    """A positive number in any notation. ArgumentTypeError otherwise."""
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number such as 1e18 or 2.15e18")
    return value


def amounts(text: str) -> tuple[float, ...]:
    """Different amounts with commas between them."""
    return tuple(dict.fromkeys(amount(part) for part in text.split(",")))


def wholes(text: str) -> tuple[int, ...]:
    """Different whole numbers of at least 1, with commas between them. ArgumentTypeError otherwise."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers of at least 1 such as 6,8,10")
    return tuple(dict.fromkeys(map(int, parts)))


def device_type(study: Study) -> str:
    device = load(study).section("general").device
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device.partition(":")[0]


def results(folder: Path) -> list[Measurement]:
    """The rows that are there."""
    file = folder / "results.csv"
    return read_results(file)[0] if file.exists() else []


def run_all(
    study: Study, planned: Sequence[tuple[Cell, scaling.Plan]], folder: Path, options: argparse.Namespace
) -> dict[str, str]:
    """Every run that has no row yet. Returns the names of those that failed, and why."""
    failed: dict[str, str] = {}
    for index, (cell, plan) in enumerate(planned, 1):
        rows = results(folder)
        if cell.key in {row.key for row in rows}:
            continue
        print(f"[{index}/{len(planned)}] {cell.name}: {plan.steps:,} steps", flush=True)
        run_dir = folder / "runs" / cell.name
        try:
            row = finished(run_dir, cell, plan) or run_one(study, cell, plan, folder, options.processes)
        except (ValueError, OSError) as error:
            failed[cell.name] = str(error)
            print(f"    failed: {error}", flush=True)
            continue
        write_results(folder / "results.csv", sorted([*rows, row], key=lambda row: row.key))
        if not options.keep_checkpoints:
            shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)  # its figures are what it was for
        print(f"    {row.val_bpb:.4f} bits per byte, {row.train_time_sec or 0:.0f} s", flush=True)
    return failed


def run_one(study: Study, cell: Cell, plan: scaling.Plan, folder: Path, processes: int) -> Measurement:
    """Run, or go on with, one of the grid. ValueError with its last lines where it does not end well."""
    run_dir = folder / "runs" / cell.name
    command = arguments(study, cell, folder / "runs")
    if list_checkpoints(run_dir):
        command.append("--general.init_from=resume")
    status = run_app(PRETRAIN, command, run_dir, processes)
    if status:
        raise ValueError(f"ended with status {status}; see {run_dir}/printed.txt:\n{last_printed(run_dir)}")
    row = finished(run_dir, cell, plan)
    if row is None:
        raise ValueError(f"stopped before its {plan.steps:,} steps: run the command again")
    return row


def finished(run_dir: Path, cell: Cell, plan: scaling.Plan) -> Measurement | None:
    """The row of a run that is done, with the steps that it should have; None for one that is not."""
    try:
        row, _ = from_run(run_dir)
    except (Unusable, RunError):
        return None
    return row if (row.key, row.num_iterations) == (cell.key, plan.steps) else None

"""Finding checkpoints on disk, with errors that say what is there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

STEP_FOLDER = re.compile(r"step_(\d+)$")


class CheckpointError(ValueError):
    """A checkpoint is missing, incomplete, damaged or does not fit."""


def step_folder(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step_{step:06d}"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    folders = [p for p in (run_dir / "checkpoints").glob("step_*") if STEP_FOLDER.search(p.name) and p.is_dir()]
    return sorted(folders, key=step_of)


def step_of(checkpoint: Path) -> int:
    match = STEP_FOLDER.search(checkpoint.resolve().name)
    assert match, f"{checkpoint} is not a step folder"
    return int(match[1])


def find_checkpoint(run_dir: Path | str, name: str = "latest") -> Path:
    """The folder of checkpoint `name` of a run: `latest`, `best`, a folder name (`step_000500`) or a step (`500`).

    Raises `CheckpointError` naming what exists where there is none of that name.
    """
    run_dir = Path(run_dir)
    existing = list_checkpoints(run_dir)
    wanted = step_folder(run_dir, int(name)) if name.isdigit() else run_dir / "checkpoints" / name
    if wanted.is_dir():
        return wanted.resolve()
    if name == "latest" and existing:  # killed between the rename of the folder and the link to it
        return existing[-1].resolve()
    found = listed([p.name for p in existing])
    raise CheckpointError(f"no checkpoint {name!r} in {run_dir}; checkpoints there: {found}{_runs_beside(run_dir)}")


def _runs_beside(run_dir: Path) -> str:
    runs = runs_in(run_dir.parent)
    return f"; runs with checkpoints in {run_dir.parent}: {listed([p.name for p in runs])}" if runs else ""


def listed(names: Sequence[str], most: int = 10) -> str:
    """The last of some names, of which the oldest come first; "and n older", or "none"."""
    older = f" and {len(names) - most} older" if len(names) > most else ""
    return (", ".join(names[-most:]) or "none") + older


def runs_in(out_dir: Path | str) -> list[Path]:
    """Run folders under `out_dir` that hold at least one checkpoint, oldest change first."""
    runs = [p.parent for p in Path(out_dir).glob("*/checkpoints") if list_checkpoints(p.parent)]
    return sorted(runs, key=lambda run: (run / "checkpoints").stat().st_mtime)


def newest_run(out_dir: Path | str, prefix: str = "") -> Path:
    """The run under `out_dir` whose checkpoints changed last, among those whose name starts with `prefix`."""
    every = runs_in(out_dir)
    runs = [run for run in every if run.name.startswith(prefix)]
    if not runs:
        which = f" whose name starts with {prefix!r}" if prefix else ""
        others = f" (there are: {listed([run.name for run in every])})" if every else ""
        raise CheckpointError(
            f"no run{which} with a checkpoint in {out_dir}{others}; train one first, or name its folder"
        )
    return runs[-1]

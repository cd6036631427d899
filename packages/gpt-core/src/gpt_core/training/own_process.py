"""An app in a process of its own, for those that run it many times: its crash or kill leaves the caller alone."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PRINTED = "printed.txt"
"""In the run's folder: what the app has printed."""
PRELOAD = ("gpt_core.training.run", "gpt_optim", "gpt_data", "torch._dynamo", "matplotlib.pyplot")
"""Imported by the server before it forks, as far as they are installed: most of what a short run takes to start."""


def run_app(app: Path, arguments: Sequence[str], run_dir: Path, processes: int = 1) -> int:
    """Run `app` (its folder) as from a shell, what it prints going to `run_dir`/printed.txt; returns the exit status.

    One process is forked from a server that has `PRELOAD` imported; several are started by torchrun. A negative status
    is the signal that ended it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", str(app)]
        with open(run_dir / PRINTED, "w", encoding="utf-8") as printed:
            return subprocess.run([*torchrun, *arguments], stdout=printed, stderr=subprocess.STDOUT).returncode
    multiprocessing.set_forkserver_preload(list(PRELOAD))
    process = multiprocessing.get_context("forkserver").Process(target=_main, args=(app, list(arguments), run_dir))
    process.start()
    try:
        process.join()
    except BaseException:  # Ctrl-C reaches the child as well, and ends it at a step
        process.join()
        raise
    assert process.exitcode is not None
    return process.exitcode


def last_printed(run_dir: Path, lines: int = 5) -> str:
    """The end of what the run's app printed."""
    return "\n".join((run_dir / PRINTED).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _main(app: Path, arguments: Sequence[str], run_dir: Path) -> None:
    printed = os.open(run_dir / PRINTED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(printed, descriptor)
    # A killed caller leaves its run alone; its successor must not write into the same folder.
    with open(run_dir / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"error: another process is still running {run_dir}: wait for it, or end it")
        sys.argv = [str(app), *arguments]
        runpy.run_path(str(app), run_name="__main__")

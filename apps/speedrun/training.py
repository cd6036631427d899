"""One training run from a command line, here or in a process of its own."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from gpt_core.config import Config, load_config
from gpt_core.distributed import distributed
from gpt_core.models.speedrun import check_fp8
from gpt_core.training.recipe import SCHEMA
from gpt_core.training.run import run

APP = Path(__file__).parent
CONFIGS = APP / "configs"


def main(argv: Sequence[str]) -> Path:
    """argv: the app, then its arguments; returns the run's folder."""
    load = partial(load_config, argv[1:], schema=SCHEMA, config_dirs=[CONFIGS], default="desk")
    config = load()
    general, parallel = config.section("general"), config.section("parallel")
    if asks_for_float8(config):
        check_fp8(general.device)  # before anything is built, or any process waits for another
    with distributed(general.device, parallel.backend, parallel.timeout_minutes) as ranks:
        clock = ranks.broadcast(datetime.now())
        config = load(clock=clock)  # read again, so that `_time` is the same on all ranks
        config.export_env()
        return run(config, ranks, clock, argv)


def asks_for_float8(config: Config) -> bool:
    """Whether the head or the MLPs are to multiply in float8."""
    model, loss = (config.component(name).kwargs for name in ("model", "loss"))
    return bool(loss.get("fp8")) or model.get("fp8_mlp", "off") != "off"


def in_own_process(arguments: Sequence[str], run_dir: Path, processes: int = 1) -> int:
    """Train with these arguments, what is printed going to `run_dir`/printed.txt; returns the exit status.

    One process is forked from a server that has torch imported: that is most of what a short run takes to start.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", str(APP)]
        with open(run_dir / "printed.txt", "w", encoding="utf-8") as printed:
            return subprocess.run([*torchrun, *arguments], stdout=printed, stderr=subprocess.STDOUT).returncode
    multiprocessing.set_forkserver_preload(["training", "gpt_optim", "gpt_data", "torch._dynamo"])
    process = multiprocessing.get_context("forkserver").Process(target=_main, args=([str(APP), *arguments], run_dir))
    process.start()
    try:
        process.join()
    except BaseException:  # Ctrl-C reaches the child as well, and ends it at a step
        process.join()
        raise
    assert process.exitcode is not None
    return process.exitcode


def _main(argv: Sequence[str], run_dir: Path) -> None:
    printed = os.open(run_dir / "printed.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor in (1, 2):
        os.dup2(printed, descriptor)
    # A killed ablation leaves its run alone; its successor must not write into the same folder.
    with open(run_dir / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"error: another process is still running {run_dir}: wait for it, or end it")
        try:
            main(argv)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")

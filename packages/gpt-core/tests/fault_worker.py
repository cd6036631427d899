"""Ranks of test_failure.py, of which one fails."""

import os
import signal
import time

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from gpt_core import failure
from gpt_core.distributed import distributed
from gpt_core.training.stop import StopRequest


def work(ranks, steps, at_step=lambda step: None):
    for step in range(steps):
        ranks.sum([1.0])
        at_step(step)
        time.sleep(0.002)


def raises(error):
    def at_step(step):
        if step == 20:
            raise error

    return at_step


def killed(step):
    if step == 20:
        os.kill(os.getpid(), signal.SIGKILL)


def main(case):
    """Rank 1 goes wrong; the others are in a collective, or (stuck) on their own."""
    failure.GRACE_SECONDS = 1.0
    errors = {"raise": ValueError("no such luck"), "stuck": ValueError("no such luck"), "bug": KeyError("luck")}
    with distributed("cpu") as ranks:
        if ranks.rank == 1:
            work(ranks, 1000, killed if case == "kill" else raises(errors[case]))
        elif case == "stuck":
            work(ranks, 21)
            time.sleep(60)
        work(ranks, 1000)


def torchrun(folder, max_restarts, entry):
    """As torchrun's agent does."""
    logs = DefaultLogsSpecs(folder / "logs", redirects=Std.ERR)
    config = LaunchConfig(
        1, 1, nproc_per_node=2, max_restarts=max_restarts, rdzv_backend="c10d", rdzv_endpoint="localhost:0", run_id="x",
        start_method="fork", logs_specs=logs,
    )  # fmt: skip
    elastic_launch(config, entry)(folder)


def killed_below_torchrun(folder):
    """Rank 1 is killed while rank 0 waits for it in a collective, and torchrun ends rank 0 with SIGTERM."""
    with distributed("cpu") as ranks, StopRequest():
        work(ranks, 1000, killed if ranks.rank == 1 else lambda step: None)


def attempt(folder):
    with distributed("cpu") as ranks:
        (folder / f"attempt_{ranks.restarts}_{ranks.rank}").write_text(ranks.launch)
        assert not ranks.alarm.store.check([failure.FIRST]), "what an earlier attempt reported is still there"
        fails = ranks.rank == 1 and not ranks.restarts
        work(ranks, 100, raises(ValueError("no such luck")) if fails else lambda step: None)

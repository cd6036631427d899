"""What test_failure.py looks at: groups of three ranks that end badly, forked from one process, case after case.

`python fault_worker.py FOLDER` writes FOLDER/CASE.json: how each rank ended, how long that took, and what was printed.
Under torchrun, `fault_worker.py FOLDER restart`: rank 1 fails once, and the second attempt succeeds.
"""

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from forks import fork_ranks

from gpt_core import failure
from gpt_core.distributed import distributed

RANKS = 3


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


def case(name, ranks):
    """Rank 1 goes wrong; the others are in a collective, or (stuck) on their own."""
    if ranks.rank == 1:
        errors = {"raise": ValueError("no such luck"), "stuck": ValueError("no such luck"), "bug": KeyError("luck")}
        work(ranks, 1000, killed if name == "kill" else raises(errors[name]))
    elif name == "stuck":
        work(ranks, 21)
        time.sleep(60)
    work(ranks, 1000)


def rank_main(folder, name, rank):
    os.dup2(os.open(folder / f"{name}_{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)
    with distributed("cpu") as ranks:
        case(name, ranks)


def run(folder, name):
    started = time.monotonic()
    codes = fork_ranks(RANKS, partial(rank_main, folder, name))
    printed = [(folder / f"{name}_{rank}.txt").read_text() for rank in range(RANKS)]
    record = {"codes": codes, "printed": printed, "seconds": time.monotonic() - started}
    (folder / f"{name}.json").write_text(json.dumps(record))


def restart(folder):
    with distributed("cpu") as ranks:
        (folder / f"attempt_{ranks.restarts}_{ranks.rank}").write_text(ranks.launch)
        assert not ranks.alarm.store.check([failure.FIRST]), "what an earlier attempt reported is still there"
        fails = ranks.rank == 1 and not ranks.restarts
        work(ranks, 100, raises(ValueError("no such luck")) if fails else lambda step: None)


if __name__ == "__main__":
    if sys.argv[2:] == ["restart"]:
        restart(Path(sys.argv[1]))
    else:
        failure.GRACE_SECONDS = 1.0
        for name in ("raise", "bug", "kill", "stuck"):
            run(Path(sys.argv[1]), name)

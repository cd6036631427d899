"""Ranks of test_killed_rank.py: one is killed, stopped or busy, the others are not in a collective."""

import ctypes
import os
import signal
import subprocess
import time

from gpt_core import failure
from gpt_core.distributed import distributed
from gpt_core.training.stop import StopRequest


def killed(rank, parent_stops):
    """`rank` is killed; the others wait as for a GPU: they go on whatever signal comes, as under the training loop."""
    failure.GRACE_SECONDS = 1.0
    with distributed("cpu") as ranks, StopRequest():
        if ranks.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        if parent_stops:  # as torchrun does to the others when a process has failed
            os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.1)


def busy(seconds):
    """Rank 1 is stopped by a signal, then computes with Python's lock held; all ranks get to the end."""
    failure.GRACE_SECONDS = 0.1
    with distributed("cpu") as ranks:
        if ranks.rank == 1:
            subprocess.Popen(["sh", "-c", f"kill -STOP {os.getpid()}; sleep {seconds}; kill -CONT {os.getpid()}"])
            ctypes.PyDLL(None).sleep(seconds)
        ranks.sum([1.0])


def forks(seconds):
    """Rank 1 is killed; a process that it has forked lives on."""
    failure.GRACE_SECONDS = 0.1
    with distributed("cpu") as ranks:
        if ranks.rank == 1:
            if os.fork() == 0:
                time.sleep(seconds)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)

"""The processes of a run.

The only place that reads the launcher's environment; everything else is handed a `Distributed`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from gpt_core.failure import Alarm

CPU = torch.device("cpu")
GROUPS = {"nccl": "cpu:gloo,cuda:nccl"}
"""Of a backend, what torch is asked for. Beside NCCL there is gloo for numbers that the CPU has and needs: over NCCL
they would wait for all that the GPU has been given to do."""


@dataclass(frozen=True)
class Distributed:
    """One process's place in the run. A single process is rank 0 of 1, and every collective is then the identity."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    backend: str | None = None
    launch: str | None = None
    """Names what the launcher was told to do once; the same after it has started the processes again."""
    restarts: int = 0
    """How often the launcher has started the processes again."""
    alarm: Alarm | None = field(default=None, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each of `values` over all ranks, in float64; one collective, between the CPUs."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def wait_for_device(self) -> None:
        """Return when all that this process has given its GPU to do is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def explain(self, error: BaseException) -> str:
        """What ended the run: `error`, or the failure of another rank that it follows from."""
        return f"{type(error).__name__}: {error}" if self.alarm is None else self.alarm.explain(error)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank. Any picklable object; between processes of one run only."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]


def _device(wanted: str, local_rank: int) -> torch.device:
    """`auto` is this rank's GPU where there is one, else the CPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda":
        wanted = f"cuda:{local_rank}"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ValueError(f"general.device is {wanted!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {wanted!r} was asked for, but this machine has {torch.cuda.device_count()} CUDA devices; "
            "use --device=cpu, or fewer processes per node"
        )
    return device


@contextmanager
def distributed(device: str = "auto", backend: str = "auto", timeout_minutes: float = 30.0) -> Generator[Distributed]:
    """Join the process group that torchrun (or Slurm's wrapper) describes in the environment, and leave it at the end.

    Without `WORLD_SIZE` in the environment, or with 1, no group is made. `backend` auto is nccl for CUDA, gloo for CPU.
    An error within ends all processes: the rank where it happened prints it, and every rank raises SystemExit(1).
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    launch, restarts = _launch()
    if world_size == 1:
        yield Distributed(device=place, launch=launch, restarts=restarts)
        return
    if backend == "auto":
        backend = "nccl" if place.type == "cuda" else "gloo"
    timeout = timedelta(minutes=timeout_minutes)
    store, rank, world_size = next(dist.rendezvous("env://", timeout=timeout))
    store = dist.PrefixStore(f"attempt {restarts}", store)  # torchrun's store still holds what the last attempt wrote
    group_store = dist.PrefixStore("group", store)
    group = GROUPS.get(backend, backend)
    dist.init_process_group(group, store=group_store, rank=rank, world_size=world_size, timeout=timeout)
    alarm = Alarm(store.clone(), rank, world_size, os.environ["MASTER_ADDR"])
    try:
        yield Distributed(rank, local_rank, world_size, place, backend, launch, restarts, alarm)
        dist.barrier()  # a rank that leaves early breaks the connections of those still in a collective
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        alarm.report(error)
        if backend == "nccl":  # its orderly end would wait for the other ranks
            os._exit(1)
        raise SystemExit(1) from None
    finally:
        alarm.stop()
        dist.destroy_process_group()


def _launch() -> tuple[str | None, int]:
    """Of torchrun or Slurm: a name of the launch that restarts keep, and their number. None for no launcher."""
    job, restarts = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT")
    if again is None:
        return (f"slurm {job}" if job else None), restarts
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    # torchrun's default name is "none" for every launch; its process outlives the restarts of its children
    name = f"{platform.node()} {os.getppid()}" if run == "none" else run
    return (f"slurm {job}" if job else f"torchrun {name}"), restarts + int(again)

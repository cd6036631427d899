"""The processes of a run.

The only place that reads the launcher's environment; everything else is handed a `Distributed`.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Distributed:
    """One process's place in the run. A single process is rank 0 of 1, and every collective is then the identity."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: torch.device = CPU
    backend: str | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each of `values` over all ranks, in float64; one collective."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

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
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local_rank)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world_size == 1:
        yield Distributed(device=place)
        return
    if backend == "auto":
        backend = "nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    try:
        yield Distributed(dist.get_rank(), local_rank, world_size, place, backend)
    finally:
        dist.destroy_process_group()

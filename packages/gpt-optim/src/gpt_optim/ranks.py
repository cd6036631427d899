"""The processes that share an optimizer's work, and which part of it is whose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard


@dataclass(frozen=True)
class Ranks:
    """One process unless `group` says otherwise; every split is that of `torch.chunk` and of DTensor's Shard(0)."""

    group: dist.ProcessGroup | None = None
    device_type: str = "cpu"

    @cached_property
    def size(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)

    @cached_property
    def rank(self) -> int:
        return 0 if self.group is None else dist.get_rank(self.group)

    @cached_property
    def mesh(self) -> DeviceMesh:
        assert self.group is not None, "one process has no mesh"
        return DeviceMesh.from_group(self.group, self.device_type)

    def chunk(self, count: int) -> int:
        """How many of `count` items the first ranks own; the last ones may own fewer, or none."""
        return -(-count // self.size)

    def share(self, count: int, rank: int | None = None) -> slice:
        """The items of `count` that `rank` owns, this one unless said."""
        rank, chunk = self.rank if rank is None else rank, self.chunk(count)
        return slice(min(rank * chunk, count), min((rank + 1) * chunk, count))

    def shares(self, count: int) -> list[int]:
        """How many of `count` items each rank owns."""
        slices = [self.share(count, rank) for rank in range(self.size)]
        return [s.stop - s.start for s in slices]

    def sharded(self, local: Tensor, shape: Sequence[int]) -> Tensor:
        """`local` as this rank's part, along the first dimension, of a tensor of `shape`; itself on one process."""
        if self.size == 1:
            return local
        stride = torch.empty(tuple(shape), device="meta").stride()
        return DTensor.from_local(local, self.mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride)


def ranks_of_shards(tensor: DTensor) -> Ranks:
    """The processes among which a DTensor is split: one dimension of its mesh, over the others it may be replicated.

    ValueError for a tensor that is split over several dimensions of the mesh, or partial.
    """
    mesh, placements = tensor.device_mesh, tensor.placements
    split = [i for i, placement in enumerate(placements) if placement.is_shard()]
    if len(split) > 1 or not all(p.is_shard() or p.is_replicate() for p in placements):
        raise ValueError(
            f"parameters may be sharded over one dimension of a mesh and replicated over others (fully_shard, with or "
            f"without HSDP), got placements {placements}"
        )
    group = mesh.get_group(split[0]) if split and mesh.size(split[0]) > 1 else None
    return Ranks(group, mesh.device_type)


def local_part(tensor: Tensor) -> Tensor:
    """What of `tensor` is in this process's memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

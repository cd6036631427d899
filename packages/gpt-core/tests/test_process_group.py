"""Which process group a backend stands for, and which of its halves a sum uses; no GPU is needed to see that."""

import pytest
import torch
import torch.distributed as dist

from gpt_core import distributed as module
from gpt_core.distributed import Distributed, distributed


class Started(Exception):
    pass


@pytest.mark.parametrize(
    ("device", "backend", "asked"),
    [
        ("cuda", "auto", "cpu:gloo,cuda:nccl"),
        ("cuda", "nccl", "cpu:gloo,cuda:nccl"),
        ("cuda", "gloo", "gloo"),
        ("cpu", "auto", "gloo"),
        ("cpu", "gloo", "gloo"),
    ],
)
def test_nccl_has_gloo_beside_it(monkeypatch, device, backend, asked):
    given = []

    def init_process_group(backend, **options):
        given.append(backend)
        raise Started

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "_device", lambda wanted, local_rank: torch.device(wanted))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "rendezvous", lambda *place, **options: iter([(dist.HashStore(), 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", init_process_group)
    with pytest.raises(Started), distributed(device, backend):
        pass
    assert given == [asked]


def test_a_sum_waits_for_no_device(monkeypatch):
    """A tensor on this device could not be read."""
    reduced = []
    monkeypatch.setattr(dist, "all_reduce", reduced.append)
    assert Distributed(world_size=2, device=torch.device("meta"), backend="nccl").sum([1, 2.5]) == [1.0, 2.5]
    assert [each.device.type for each in reduced] == ["cpu"]

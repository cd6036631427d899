"""A rank of test_monitor_gradients.py."""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from gpt_core.distributed import distributed
from gpt_core.monitor import gradient_stats


def whole():
    """A model with gradients; one parameter has a single row, so that over two ranks a shard is empty."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 1))
    model(torch.ones(4, 5)).square().sum().backward()
    return model


def main(folder):
    with distributed("cpu") as ranks:
        mesh = init_device_mesh("cpu", (2,))
        sharded = []
        for name, parameter in whole().named_parameters():
            placement = [Replicate() if name == "0.bias" else Shard(0)]
            new = nn.Parameter(distribute_tensor(parameter.detach(), mesh, placement))
            new.grad = distribute_tensor(parameter.grad, mesh, placement)
            sharded.append((name, new))
        torch.save(gradient_stats(sharded), folder / f"stats{ranks.rank}.pt")

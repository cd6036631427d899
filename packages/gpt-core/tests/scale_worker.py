"""Ranks of test_loss_scale_ranks.py: float16's loss scale, and clipping, where each rank has gradients of its own."""

import json
import math

import torch
import torch.distributed as dist

from gpt_core.distributed import distributed
from gpt_core.training import amp_grad_scaler
from gpt_core.training.parallel import parallelize


class Averaging(torch.optim.SGD):
    """The least that ZeRO-2 asks of an optimizer."""

    def reduce_gradients(self):
        for group in self.param_groups:
            for p in group["params"]:
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()

    def clip_grad_norm_(self, max_norm):
        self.reduce_gradients()
        parameters = [p for group in self.param_groups for p in group["params"]]
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


class Sum(torch.nn.Module):
    """The gradient of its one row of weights is its input."""

    def __init__(self):
        super().__init__()
        self.model = torch.nn.Linear(2, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)

    def forward(self, x):
        return self.model(x).sum()


GRADIENTS = [[[30.0, 40.0], [-30.0, -40.0]], [[6.0, 0.0], [0.0, 8.0]]]
"""Of two steps, on two ranks: opposite ones, and two whose mean is (3, 4)."""


def clipped(ranks):
    """{strategy: (norm, weights) after each step} of SGD with rate 1 and gradients clipped to the norm 1."""
    seen = {}
    for strategy in ("ddp", "zero2", "fsdp"):
        forward = parallelize(Sum(), strategy, ranks)
        weights = list(forward.parameters())
        optimizer = (Averaging if strategy == "zero2" else torch.optim.SGD)(weights, lr=1.0)
        scaler, seen[strategy] = amp_grad_scaler(1.0, torch.float32, "cpu"), []
        for gradients in GRADIENTS:
            forward(torch.tensor(gradients[ranks.rank])).backward()
            norm = float(scaler.clip(weights, optimizer))
            scaler.step(optimizer, finite=math.isfinite(norm))
            optimizer.zero_grad()
            whole = getattr(weights[0], "full_tensor", lambda w=weights[0]: w.detach())()
            seen[strategy].append([norm, whole.flatten().tolist()])
    return seen


def main(folder):
    """Steps 0 and 3 overflow, on one rank each; writes scale, growth and weight after each, and what `clipped` saw."""
    with distributed("cpu") as ranks:
        p = torch.nn.Parameter(torch.ones(2))
        optimizer, seen = Averaging([p], lr=0.1), []
        scaler = amp_grad_scaler(1.0, torch.float16, "cpu")
        for step in range(5):
            scaler.scale((p * torch.tensor([1.0, ranks.rank])).sum()).backward()
            if (step, ranks.rank) in ((0, 1), (3, 0)):
                p.grad[1] = math.inf
            scaler.unscale(optimizer)
            norm = float(scaler.clip([p], optimizer))
            scaler.step(optimizer, finite=math.isfinite(norm))
            optimizer.zero_grad()
            state = scaler.state_dict()
            seen.append([state["scale"], state["_growth_tracker"], math.isfinite(norm), p.tolist()])
        (folder / f"rank_{ranks.rank}.json").write_text(json.dumps([seen, clipped(ranks)]))

"""Ranks of test_loss_scale_ranks.py: float16's loss scale where each rank has its own part of the gradients."""

import json
import math

import torch
import torch.distributed as dist

from gpt_core.distributed import distributed
from gpt_core.training import amp_grad_scaler


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


def main(folder):
    """Steps 0 and 3 overflow, on one rank each; writes scale, growth and weight after each step."""
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
        (folder / f"rank_{ranks.rank}.json").write_text(json.dumps(seen))

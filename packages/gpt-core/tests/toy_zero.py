"""AdamW with its state sharded by rows: the smallest optimizer that can do ZeRO-1 and ZeRO-2, for the tests."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard


class ToyZero(torch.optim.Optimizer):
    """zero: 0 no sharding; 1 gradients are averaged already; 2 it averages them itself."""

    def __init__(self, params, *, zero, process_group=None):
        super().__init__(params, {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1})
        self.zero, self.group = zero, process_group if zero else None
        self.size = dist.get_world_size(self.group) if self.group else 1
        self.rank = dist.get_rank(self.group) if self.group else 0
        self.mesh = DeviceMesh.from_group(self.group, "cpu") if self.group else None
        self.reduced = False
        for p in self.parameters():
            self.state[p] = {"exp_avg": self.shards(p), "exp_avg_sq": self.shards(p), "step": torch.zeros(())}

    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    def rows(self, p, rank=None):
        chunk = -(-len(p) // self.size)
        start = min(len(p), chunk * (self.rank if rank is None else rank))
        return slice(start, min(len(p), start + chunk))

    def shards(self, p):
        own = torch.zeros_like(p[self.rows(p)])
        if self.mesh is None:
            return own
        return DTensor.from_local(own, self.mesh, [Shard(0)], shape=p.shape, stride=p.stride(), run_check=False)

    def reduce_gradients(self):
        if self.zero == 2 and not self.reduced:
            for p in self.parameters():
                dist.all_reduce(p.grad, group=self.group)
                p.grad /= self.size
        self.reduced = True

    def clip_grad_norm_(self, max_norm):
        self.reduce_gradients()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters()])
        if max_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters(), max_norm, norm)
        return norm

    def expected_state_bytes(self):
        rows = [(p, self.rows(p)) for p in self.parameters()]
        return sum(8 * (own.stop - own.start) * p[0].numel() + 4 for p, own in rows)

    @torch.no_grad()
    def step(self, closure=None):
        self.reduce_gradients()
        for group in self.param_groups:
            (beta1, beta2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                state, own = self.state[p], self.rows(p)
                m, v = (getattr(state[key], "_local_tensor", state[key]) for key in ("exp_avg", "exp_avg_sq"))
                state["step"] += 1
                grad, mine = p.grad[own], p[own]
                m.lerp_(grad, 1 - beta1)
                v.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                corrected = (v / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
                mine.mul_(1 - lr * group["weight_decay"]).addcdiv_(
                    m / (1 - beta1 ** state["step"]), corrected, value=-lr
                )
                for rank in range(self.size):
                    part = p[self.rows(p, rank)]
                    if part.numel() and self.group:
                        dist.broadcast(part, src=rank, group=self.group)
        self.reduced = False


def toy_zero(model: nn.Module, zero: int = 0, process_group: object = None) -> ToyZero:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return ToyZero(groups, zero=zero, process_group=process_group)

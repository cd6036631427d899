"""What each process of the distributed tests runs: a small model trained under every strategy, against one process."""

import json
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gpt_optim import MuonAdamW, Rule, ZeroOne, param_groups, polar_express

WIDTH, VOCABULARY = 16, 131  # neither the 131 rows of the embedding nor the 5 blocks divide by 2, 3 or 4
ORTHOGONALIZE = partial(polar_express, dtype=torch.float32, form="direct")  # the form that rounds least
STEPS, SAVED_AFTER = 5, 2  # saved when no gradient waits for its turn (`every`)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 2 * WIDTH, bias=False)  # 16 query rows, 8 key rows, 8 value rows
        self.up = nn.Linear(2 * WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(self.qkv(self.norm(x)))))


class Model(nn.Module):
    def __init__(self, bank=True):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(5))
        self.bank = nn.Parameter(torch.randn(3, WIDTH, WIDTH) / 4) if bank else None
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        for matrix in self.bank if self.bank is not None else ():
            x = x + torch.tanh(x @ matrix)
        return self.head(x * self.gain)


def mixed(model, **options):
    """All rules in one optimizer; every option that changes what must travel."""
    rules = [
        Rule(r"qkv", {"kind": "normuon", "split": (16, 8, 8)}),
        Rule(r"up|bank", {"kind": "muon", "weight_decay": 0.2}),
        Rule(r"down\.weight", {"kind": "normuon"}),
        Rule(r"embed|head\.weight", {"kind": "adamw", "lr": 3e-3, "every": 2}),
        Rule(r"norm|bias|gain", {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.0}),
    ]
    # Polar Express multiplies small singular values, and their rounding errors, by up to 989: hence the small rate.
    # Cautious decay is off since it jumps where an update is within rounding of zero.
    groups = param_groups(model, rules)
    return MuonAdamW(groups, lr=0.003, weight_decay=0.1, orthogonalize=ORTHOGONALIZE, **options)


def loss_of(model, step, share):
    """The loss on this process's `share` of a batch of 24 sequences; all shares are of one size."""
    ids = torch.randint(VOCABULARY, (24, 6), generator=torch.Generator().manual_seed(step))[share]
    return nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def train(model, optimizer, first, last, share=slice(None), clip=0.5):
    """Norms of the gradients before clipping, in steps `first` to `last`."""
    norms = []
    for step in range(first, last):
        loss_of(model, step, share).backward()
        norms.append(float(clip_grad_norm(model, optimizer, clip)))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def clip_grad_norm(model, optimizer, clip):
    if isinstance(optimizer, MuonAdamW):
        return optimizer.clip_grad_norm_(clip)
    return nn.utils.clip_grad_norm_(model.parameters(), clip)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(model):
    return {name.removeprefix("module."): whole(p.detach()).clone() for name, p in model.named_parameters()}


def distance(model, expected):
    found = weights(model)
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).abs().max()) for name in expected)


STRATEGIES = ("zero1", "zero2", "fsdp", "hsdp", "ZeroOne rows", "ZeroOne tensors")
CLIP_MUON = {"zero2", "hsdp"}
"""Where clipping scales the matrices' gradients too."""
WORLDS = {strategy: (4,) if strategy == "hsdp" else (2, 3, 4) for strategy in STRATEGIES}


def torchs_own(strategy):
    if strategy == "ZeroOne tensors":
        return torch.optim.Adafactor, {"lr": 3e-3}
    # With a small eps, Adam's update of a gradient that is only rounding noise would be the sign of the noise.
    return torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 0.1, "eps": 1e-4, "fused": True}


def shared(strategy):
    """The model and its optimizer under `strategy`; "alone" is one process."""
    model = Model(bank=not strategy.endswith("sdp"))
    everybody = None if strategy == "alone" else dist.group.WORLD
    clip_muon = strategy in CLIP_MUON
    if strategy.endswith("sdp"):
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        if strategy == "hsdp":
            mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model, mixed(model, clip_muon=clip_muon)
    if strategy == "zero1":
        return DistributedDataParallel(model), mixed(model, process_group=everybody, gradients="averaged")
    if strategy.startswith("ZeroOne"):
        made, options = torchs_own(strategy)
        optimizer = ZeroOne(model.parameters(), made, everybody, strategy.split()[1], **options)
        return DistributedDataParallel(model), optimizer
    return model, mixed(model, process_group=everybody, clip_muon=clip_muon)


def alone(strategy):
    """The run of `strategy` on one process: weights after the save and at the end, norms, and the optimizer."""
    model = Model(bank=not strategy.endswith("sdp"))
    optimizer = mixed(model, clip_muon=strategy in CLIP_MUON)
    if strategy.startswith("ZeroOne"):
        made, options = torchs_own(strategy)
        optimizer = made(model.parameters(), **options)
    norms = train(model, optimizer, 0, SAVED_AFTER)
    middle = weights(model)
    norms += train(model, optimizer, SAVED_AFTER, STEPS)
    return middle, weights(model), norms, optimizer


def state_bytes(optimizer):
    local = [t.to_local() if isinstance(t, DTensor) else t for s in optimizer.state.values() for t in s.values()]
    return sum(t.numel() * t.element_size() for t in local)


def identical(model):
    """Whether every process has the same bits in every weight."""
    flat = torch.cat([whole(p.detach()).flatten() for p in model.parameters()])
    first = flat.clone()
    dist.broadcast(first, src=0)
    same = torch.tensor(float(torch.equal(first, flat)))
    dist.all_reduce(same, op=dist.ReduceOp.MIN)
    return bool(same)


def state_of(model, optimizer):
    return {"model": getattr(model, "module", model).state_dict(), "optimizer": optimizer.state_dict()}


def compare(rank, world, folder, resume_from):
    """{strategy: {measure: value}}; a checkpoint of each in `folder`, and the run that goes on from `resume_from`'s."""
    report = {}
    share = slice(rank * 24 // world, (rank + 1) * 24 // world)
    for strategy in (strategy for strategy in STRATEGIES if world in WORLDS[strategy]):
        middle, end, norms, single = alone(strategy)
        model, optimizer = shared(strategy)
        found = train(model, optimizer, 0, SAVED_AFTER, share)
        if strategy not in ("hsdp", "ZeroOne tensors"):
            dcp.save(state_of(model, optimizer), checkpoint_id=str(folder / f"{strategy}_{world}"))
        entry = {"middle": distance(model, middle)}
        found += train(model, optimizer, SAVED_AFTER, STEPS, share)
        entry["end"] = distance(model, end)
        entry["identical"] = identical(model)
        entry["norms"] = max(abs(a - b) / b for a, b in zip(found, norms, strict=True))
        if not strategy.startswith("ZeroOne"):
            entry["bytes"] = [state_bytes(optimizer), optimizer.expected_state_bytes(), state_bytes(single)]
        if resume_from and strategy not in ("hsdp", "ZeroOne tensors"):
            model, optimizer = shared(strategy)
            resume(model, optimizer, folder / f"{strategy}_{resume_from}")
            train(model, optimizer, SAVED_AFTER, STEPS, share)
            entry["resumed"] = distance(model, end)
        report[strategy] = entry
    return report | {"layouts": other_layouts(), "bfloat16": bfloat16_shards(), "torch's loader": through_torch()}


def other_layouts():
    """The largest distance to one process of tensors whose entries are not in order, large ones and small ones."""
    shapes = {"large": (24, 8, 3, 3), "small": (4, 3, 2, 2), "transposed": (64, 40)}

    def build(**options):
        made = [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in shapes.values()]
        made = [t.to(memory_format=torch.channels_last) if t.dim() == 4 else t.t().contiguous().t() for t in made]
        params = [nn.Parameter(t) for t in made]
        assert not any(p.is_contiguous() for p in params)
        return params, MuonAdamW(params, lr=0.1, kind="adamw", **options)

    runs = [build(), build(process_group=dist.group.WORLD)]
    runs.append(build(process_group=dist.group.WORLD, gradients="averaged"))
    for step in range(3):
        for params, optimizer in runs:
            for i, p in enumerate(params):
                grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * step + i))
                p.grad = torch.empty_like(p).copy_(grad)
            optimizer.step()
            optimizer.zero_grad()
    (expected, _), *others = runs
    pairs = [pair for params, _ in others for pair in zip(params, expected, strict=True)]
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def bfloat16_shards():
    """Whether one bfloat16 matrix, which most processes own no part of, is updated as on one process, bit by bit."""
    found = []
    for shards in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(16, 12, bias=False).bfloat16()
        if shards:
            fully_shard(layer, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        optimizer = MuonAdamW(layer.parameters(), kind="normuon", orthogonalize=ORTHOGONALIZE)
        for step in range(3):
            grad = torch.randn(12, 16, generator=torch.Generator().manual_seed(step)).bfloat16()
            weight = layer.weight
            weight.grad = distribute_tensor(grad, weight.device_mesh, weight.placements) if shards else grad
            optimizer.step()
            optimizer.zero_grad()
        found.append(whole(layer.weight.detach()))
    return torch.equal(*found)


def through_torch():
    """Whether get_optimizer_state_dict and set_optimizer_state_dict carry the whole state over, under fsdp."""
    model, optimizer = shared("fsdp")
    train(model, optimizer, 0, SAVED_AFTER)
    saved = get_optimizer_state_dict(model, optimizer)
    other_model, other = shared("fsdp")
    set_optimizer_state_dict(other_model, other, saved, options=StateDictOptions(strict=False))
    pairs = zip(optimizer.state.values(), other.state.values(), strict=True)
    return all(torch.equal(whole(ours[key]), whole(theirs[key])) for ours, theirs in pairs for key in ours)


def resume(model, optimizer, checkpoint):
    if isinstance(optimizer, ZeroOne):
        optimizer.allocate_state()
    state = state_of(model, optimizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is meant to be one
        dcp.load(state, checkpoint_id=str(checkpoint), no_dist=not dist.is_initialized())
    getattr(model, "module", model).load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def main(rank, world, folder, resume_from=None):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, init_method=f"file://{folder}/rendezvous_{world}")
    try:
        report = compare(rank, world, Path(folder), resume_from)
        (Path(folder) / f"report_{world}_{rank}.json").write_text(json.dumps(report))
        dist.barrier()
    finally:
        dist.destroy_process_group()

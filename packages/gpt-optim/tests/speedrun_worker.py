"""A toy model with the speedrun's parameters, the speedrun's rules written out, and what each process runs of them.

The rules here are those of the record's description, one matrix and one tensor at a time, without any of the package's
code: momentum, five polynomials, rows of equal mean square, decay by the rate squared, kept gradients, tie, split.
"""

import json
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.tensor import DTensor

import gpt_optim
from gpt_optim import factories, schedules

WIDTH, VOCABULARY, LAYERS, SLOTS = 8, 131, 2, 4
SHAPES = {
    "attn": (LAYERS, 4 * WIDTH, WIDTH),
    "mlp": (SLOTS, 2, 4 * WIDTH, WIDTH),  # the last slots are padding: no gradient reaches them
    "embed": (VOCABULARY, WIDTH),
    "lm_head": (WIDTH, VOCABULARY),
    "value_embed": (2 * VOCABULARY, WIDTH),
    "bigram_embed": (3 * VOCABULARY, WIDTH),
    "attn_gate_bank": (LAYERS, 2, 3),
    "ve_gate_bank": (2, 2, 3),
    "smear_gate": (1, 3),
    "skip_gate": (1, 3),
    "x0_lambdas": (LAYERS,),
    "scalars": (11,),
}
FLOAT32 = ("x0_lambdas", "scalars")
POLYNOMIALS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
ADAM = {  # learning rate, betas, weight decay
    "scalars": (0.04, 0.9, 0.99, 0.0),
    "x0_lambdas": (0.04, 0.65, 0.95, 0.0),
    "smear_gate": (8e-5, 0.9, 0.99, 0.0),
    "skip_gate": (4e-4, 0.9, 0.99, 0.0),
    "attn_gate_bank": (0.008, 0.9, 0.99, 0.005),
    "ve_gate_bank": (0.008, 0.9, 0.99, 0.005),
    "value_embed": (0.6, 0.75, 0.95, 0.025),
    "bigram_embed": (0.6, 0.75, 0.95, 0.025),
    "lm_head": (0.008, 0.5, 0.95, 0.75),
    "embed": (0.008, 0.5, 0.95, 0.75),
}
STEPS, SPLIT = 10, 5
RATE = schedules.stages(STEPS, (1.0, 1.5), (4,), cooldown_frac=0.5, end_factor=0.1)
MOMENTUM = schedules.momentum(4, max_steps=STEPS, cooldown_iters=3)


class Toy(nn.Module):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        for name, shape in SHAPES.items():
            value = torch.randn(shape, generator=generator, dtype=torch.float64) / 4
            kept = torch.float32 if name in FLOAT32 and dtype == torch.bfloat16 else dtype
            self.register_parameter(name, nn.Parameter(value.to(kept)))
        with torch.no_grad():
            self.mlp[LAYERS:] = 0
            self.embed.copy_(self.lm_head.T)


def gradients(step, share=0):
    """Gradients of one process's batch at one step, float64."""
    generator = torch.Generator().manual_seed(1000 * step + share)
    found = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    found["mlp"][LAYERS:] = 0
    return found


def backward(model, grads):
    """As a backward pass does: on top of what is there."""
    for name, p in model.named_parameters():
        grad = grads[name].to(p.dtype)
        p.grad = grad if p.grad is None else p.grad + grad


def set_rates(optimizer, step):
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * RATE(step)
        group["momentum"] = MOMENTUM(step)


def train(model, optimizer, first, last, shares=(0,)):
    """Steps of the optimizer with the mean of the gradients of these shares."""
    for step in range(first, last):
        set_rates(optimizer, step)
        found = [gradients(step, share) for share in shares]
        backward(model, {name: sum(f[name] for f in found) / len(found) for name in SHAPES})
        optimizer.step()
        optimizer.zero_grad()


def exactly(monkeypatch=None):
    """Orthogonalise in the dtype of the momentum, by the form that rounds least."""
    iterate = {
        "polar_express": partial(gpt_optim.polar_express, dtype=torch.float64, form="direct"),
        "newton_schulz": partial(gpt_optim.newton_schulz, dtype=torch.float64, form="direct"),
    }
    if monkeypatch is None:
        factories.ORTHOGONALIZERS.update(iterate)
        return
    for name, function in iterate.items():
        monkeypatch.setitem(factories.ORTHOGONALIZERS, name, function)


class Rules:
    """The speedrun's step in float64, on plain tensors by name."""

    def __init__(self, weights, split=SPLIT, every=2, normuon=True, cautious=True, iterate=None):
        self.w = {name: w.detach().double().clone() for name, w in weights.items()}
        self.split, self.every, self.normuon, self.cautious = split, every, normuon, cautious
        self.iterate = iterate or self.polar
        self.kept = {name: torch.zeros_like(w) for name, w in self.w.items()}
        self.m = {name: torch.zeros_like(w) for name, w in self.w.items()}
        self.v = {name: torch.zeros_like(w) for name, w in self.w.items() if name in ADAM}
        self.t = dict.fromkeys(ADAM, 0)
        self.rows = {}
        self.updates = dict.fromkeys(SHAPES, 0)

    def step(self, s, grads):
        for name in self.w:
            self.kept[name] = self.kept[name] + grads[name].double()
        self.banks(s)
        if (s + 1) % self.every:
            return
        tied = s <= self.split
        if tied:
            self.kept["lm_head"] = self.kept["lm_head"] + self.kept["embed"].T
        for name in ADAM:
            if not (tied and name == "embed"):
                self.adam(name, s)
        if tied:
            self.w["embed"] = self.w["lm_head"].T.clone()
        if s == self.split:
            self.m["embed"], self.v["embed"] = self.m["lm_head"].T.clone(), self.v["lm_head"].T.clone()
            self.t["embed"] = self.t["lm_head"]
        for name in ADAM:
            self.kept[name] = torch.zeros_like(self.kept[name])

    def adam(self, name, s):
        rate, b1, b2, decay = ADAM[name]
        rate = rate * RATE(s)
        self.t[name] += 1
        self.updates[name] += 1
        g, t, p = self.kept[name], self.t[name], self.w[name]
        self.m[name] = b1 * self.m[name] + (1 - b1) * g
        self.v[name] = b2 * self.v[name] + (1 - b2) * g * g
        update = rate * (1 - b2**t) ** 0.5 / (1 - b1**t) * self.m[name] / (self.v[name].sqrt() + 1e-10)
        decays = (update * p > 0) if self.cautious else torch.ones_like(p, dtype=torch.bool)
        self.w[name] = p - update - torch.where(decays, rate * rate * decay * p, 0.0)

    def banks(self, s):
        for name, rows in (("attn", WIDTH), ("mlp", 4 * WIDTH)):
            self.updates[name] += 1
            shape = SHAPES[name]
            w, g, m = (t.reshape(-1, rows, WIDTH).clone() for t in (self.w[name], self.kept[name], self.m[name]))
            for i in range(len(w)):
                mu = MOMENTUM(s)
                m[i] = mu * m[i] + (1 - mu) * g[i]
                x = self.iterate((1 - mu) * g[i] + mu * m[i])
                if self.normuon:
                    x = self.equal_rows((name, i), x)
                doubled = 2.0 if name == "mlp" and i % 2 else 1.0
                eta = 0.023 * RATE(s) * max(1.0, rows / WIDTH) ** 0.5 * doubled
                decay = eta * 1.2 * 0.023 * RATE(s) * w[i]
                w[i] = w[i] - (decay * (w[i] * x >= 0) if self.cautious else decay) - eta * x
            self.w[name], self.m[name] = w.reshape(shape), m.reshape(shape)
            self.kept[name] = torch.zeros_like(self.kept[name])

    @staticmethod
    def polar(x):
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        x = x / (1.02 * x.norm() + 1e-6)
        for a, b, c in POLYNOMIALS:
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if tall else x

    def equal_rows(self, key, x):
        mean = x.square().mean(1, keepdim=True)
        self.rows[key] = 0.95 * self.rows.get(key, torch.zeros_like(mean)) + 0.05 * mean
        scaled = x / self.rows[key].clamp(min=1e-10).sqrt()
        return scaled * (x.norm() / scaled.norm().clamp(min=1e-10))


def shared(world):
    model = Toy()
    group = dist.group.WORLD if world > 1 else None
    optimizer = gpt_optim.speedrun(model, untie_at=SPLIT, zero=2 if world > 1 else 0, process_group=group)
    set_rates(optimizer, 0)  # a checkpoint has what its groups were configured with: so must what it is read into
    return model, optimizer


def mine(rank, world, shares=4):
    return range(rank * shares // world, (rank + 1) * shares // world)


def distance(model, expected):
    return max(float((p.detach() - expected[name]).abs().max()) for name, p in model.named_parameters())


def identical(model):
    """Whether every process has the same bits in every weight."""
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    first = flat.clone()
    dist.broadcast(first, src=0)
    same = torch.tensor(float(torch.equal(first, flat)))
    dist.all_reduce(same, op=dist.ReduceOp.MIN)
    return bool(same)


def state_of(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def save(model, optimizer, folder):
    dcp.save(state_of(model, optimizer), checkpoint_id=str(folder))


def resume(model, optimizer, folder):
    state = state_of(model, optimizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is meant to be one
        dcp.load(state, checkpoint_id=str(folder), no_dist=not dist.is_initialized())
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])


def moments(optimizer, parameter):
    whole = lambda t: t.full_tensor() if isinstance(t, DTensor) else t
    return [whole(optimizer.state[parameter][key]) for key in ("exp_avg", "exp_avg_sq")]


def compare(rank, world, folder):
    """What this process finds, against the rules on one; checkpoints before and after the split."""
    model, optimizer = shared(world)
    rules = Rules(dict(model.named_parameters()))
    report = {"ties": []}
    for step in range(STEPS):
        train(model, optimizer, step, step + 1, mine(rank, world))
        found = [gradients(step, share) for share in range(4)]
        rules.step(step, {name: sum(f[name] for f in found) / 4 for name in SHAPES})
        report["ties"].append(bool(torch.equal(model.embed, model.lm_head.T)))
        if step == SPLIT:
            pairs = zip(moments(optimizer, model.embed), moments(optimizer, model.lm_head), strict=True)
            report["moments"] = all(torch.equal(ours, theirs.T) for ours, theirs in pairs)
            report["counts"] = [int(optimizer.state[p]["step"]) for p in (model.embed, model.lm_head)]
        if world == 2 and step + 1 in (4, 8):
            save(model, optimizer, folder / f"saved_{step + 1}")
    report["end"] = distance(model, rules.w)
    report["identical"] = identical(model)
    report["bytes"] = optimizer.expected_state_bytes()
    for saved in (4, 8) if (folder / "saved_8").is_dir() else ():
        model, optimizer = shared(world)
        resume(model, optimizer, folder / f"saved_{saved}")
        train(model, optimizer, saved, STEPS, mine(rank, world))
        report[f"resumed_{saved}"] = distance(model, rules.w)
    report["sparse"] = [sparse_and_dense(rank, world, dtype) for dtype in (torch.float64, torch.bfloat16)]
    return report


def sparse_and_dense(rank, world, dtype):
    """The largest distance between bigram tables whose gradients travel by rows and whole, and the rows that came."""
    models = [Toy(dtype) for _ in range(2)]
    optimizers = [
        gpt_optim.speedrun(model, sparse_bigrams=sparse, zero=2, process_group=dist.group.WORLD)
        for model, sparse in zip(models, (True, False), strict=True)
    ]
    rows = []
    for step in range(4):
        for model, optimizer in zip(models, optimizers, strict=True):
            grads = gradients(step, rank)
            kept = torch.zeros(len(grads["bigram_embed"]), 1)
            kept[torch.arange(5) * 7 + 3 * rank + step] = float(rank != 1 or step > 1)  # a rank may have none at all
            backward(model, {**grads, "bigram_embed": grads["bigram_embed"] * kept})
            norm = optimizer.clip_grad_norm_(0.5 if step == 3 else 0.0)
            bucket = next(unit for unit in optimizer._units if unit.group["name"] == "bigram_embed").bucket
            if step % 2 and hasattr(bucket, "_from"):
                rows.append(sum(bucket._from))
            optimizer.step()
            optimizer.zero_grad()
    assert float(norm) > 0
    tables = [model.bigram_embed.detach().double() for model in models]
    return float((tables[0] - tables[1]).abs().max()), sum(rows), identical(models[0])


def main(rank, world, folder):
    torch.set_num_threads(1)
    exactly()
    dist.init_process_group("gloo", rank=rank, world_size=world, init_method=f"file://{folder}/rendezvous_{world}")
    try:
        report = compare(rank, world, Path(folder))
        (Path(folder) / f"report_{world}_{rank}.json").write_text(json.dumps(report))
        dist.barrier()
    finally:
        dist.destroy_process_group()

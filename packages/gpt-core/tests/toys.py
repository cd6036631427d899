"""Toys for the tests of training: a resumable stream of random batches and a tiny GPT around which to train."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gpt_core.distributed import Distributed
from gpt_core.models import GPT, GPTConfig, gpt
from gpt_core.models.nanochat import Nanochat, NanochatConfig
from gpt_core.training import BatchPlan, ModelWithLoss, TrainState, amp_grad_scaler, autoregressive, train

VOCAB, CONTEXT, BATCH = 17, 8, 2


class Spelled:
    """A tokenizer whose tokens stand for so many bytes."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def token_bytes(self):
        return np.array(self.sizes, np.int32)


@dataclass(frozen=True)
class ToyBatch:
    inputs: Tensor
    targets: Tensor

    def to(self, device, non_blocking=False):
        return replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


class ToyLoader:
    """Batch n of rank r is the (n * world_size + r)-th of one stream; every batch has another share of masked targets.

    So two ranks with one micro-step see, step for step, what one process with two micro-steps sees.
    """

    batches_per_epoch = 3
    FEW = (0.0, 1.0, 0.95, 0.5, 1.0)
    """Shares that are masked as with conversations: a batch without a target, a rank whose whole step has none."""

    def __init__(self, seed=0, rank=0, world_size=1, masked=True, shares=(0.0, 0.25, 0.5, 0.75)):
        self.seed, self.rank, self.world_size, self.masked, self.shares = seed, rank, world_size, masked, shares
        self.batches = 0

    def __iter__(self):
        return self

    def __next__(self):
        index = self.batches * self.world_size + self.rank
        self.batches += 1
        draw = torch.Generator().manual_seed(1000 * self.seed + index)
        ids = torch.randint(VOCAB, (BATCH, CONTEXT + 1), generator=draw)
        targets = ids[:, 1:].clone()
        if self.masked:
            targets[torch.rand(BATCH, CONTEXT, generator=draw) < self.shares[index % len(self.shares)]] = -1
        return ToyBatch(ids[:, :-1].clone(), targets)

    def state_dict(self):
        return {"seed": self.seed, "batches": self.batches * self.world_size}

    def load_state_dict(self, state):
        if state["seed"] != self.seed:
            raise ValueError(f"state has seed = {state['seed']}, the loader has {self.seed}")
        self.batches = state["batches"] // self.world_size


def any_gpt(seed, **fields):
    """In float64, ready to decode; a Nanochat whose smear counts where `smear` is among the fields."""
    torch.manual_seed(seed)
    if "smear" not in fields:
        return GPT(GPTConfig(**fields)).double().eval()
    model = Nanochat(NanochatConfig(**fields)).double().eval()
    with torch.no_grad():
        for parameter in (model.smear_lambda, model.smear_gate.weight):
            parameter.fill_(0.7)
        for name, parameter in model.named_parameters():
            if name.endswith(("out.weight", "down.weight")):  # which begin at 0
                parameter.normal_(std=0.25)
    return model


def tiny_gpt(seed=0, **flags):
    torch.manual_seed(seed)
    kwargs = {"preset": "gpt2_pre", "n_layer": 2, "n_head": 2, "n_embd": 16} | flags
    return gpt(VOCAB, CONTEXT, **kwargs)


def adamw(model, **options):
    """Two groups, as GPT training has them."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **({"lr": 1e-2, "betas": (0.9, 0.95)} | options))


def make_state(model=None, *, data=None, optimizer=adamw, scaler=None, **flags):
    model = tiny_gpt(**flags) if model is None else model
    scaler = scaler or amp_grad_scaler(grad_clip=1.0, dtype=torch.float32, device_type="cpu")
    return TrainState(model, optimizer(model), scaler, data or ToyLoader())


def run_loop(state, max_steps, *, hooks=(), micro_steps=1, ranks=None, loss=None, forward=None, **options):
    ranks, loss = ranks or Distributed(), loss or autoregressive()
    return train(
        state,
        forward or ModelWithLoss(state.model, loss),
        loss=loss,
        plan=BatchPlan(BATCH, micro_steps, ranks.world_size, CONTEXT),
        max_steps=max_steps,
        distributed=ranks,
        hooks=hooks,
        **({"autocast": nullcontext, "schedule": lambda step: 1.0} | options),
    )

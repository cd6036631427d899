"""Spreading a model over the processes of a run.

single: one process. ddp: whole copies, gradients are averaged. zero1: the same, with the optimizer's state sharded.
zero2: whole copies, the optimizer averages the gradients and shards its state. fsdp: everything is sharded.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from gpt_core.config import Config
from gpt_core.distributed import Distributed
from gpt_core.training import fsdp
from gpt_core.training.config import ParallelConfig
from gpt_core.training.sharded_optimizer import check_optimizer


def resolve_strategy(config: ParallelConfig, distributed: Distributed) -> str:
    """`auto` by the number of processes; refuses what cannot work."""
    if config.strategy == "auto":
        return "single" if distributed.world_size == 1 else config.several
    if config.strategy == "single" and distributed.world_size > 1:
        raise ValueError(
            f"parallel.strategy is single, but {distributed.world_size} processes were started: each would train "
            "the same model on its own; use ddp or auto, or start one process"
        )
    if config.strategy != "single" and distributed.world_size == 1:
        raise ValueError(
            f"parallel.strategy is {config.strategy}, but there is one process; start several with torchrun, or use "
            "auto"
        )
    return config.strategy


def check_combination(config: Config, strategy: str) -> None:
    """ValueError where the rest of a configuration (`recipe.SCHEMA`) cannot go with `strategy`; nothing is built."""
    check_optimizer(config.component("optimizer"), strategy)
    if strategy == "fsdp" and config.section("general").compile == "model":
        raise ValueError(
            "general.compile is model, but fsdp gathers the weights block by block, between which one graph cannot "
            "stretch; use general.compile=block"
        )
    if strategy == "zero2" and config.section("logging").gradient_log_interval:
        raise ValueError(
            "logging.gradient_log_interval needs whole gradients, of which zero2 keeps none; set it to 0 (the global "
            "norm is logged always), or use zero1, ddp or fsdp"
        )
    if strategy == "zero2" and config.component("scaler").path.rpartition(".")[2] == "keller_scaler":
        raise ValueError(
            "keller_scaler needs the averaged gradient of every tensor, which zero2 keeps nowhere whole; use "
            "amp_grad_scaler, or zero1, ddp or fsdp"
        )


def parallelize(
    forward: nn.Module, strategy: str, distributed: Distributed, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """What to call instead of `forward` (a `ModelWithLoss`); rank 0's weights go to all. Collective.

    dtype: of autocast, in which fsdp gathers matrices. For fsdp `forward.model` is sharded in place and moved to the
    rank's device.
    """
    if strategy == "single":
        return forward
    if strategy in ("ddp", "zero1"):
        devices = [distributed.device] if distributed.device.type == "cuda" else None
        return DistributedDataParallel(forward, device_ids=devices, gradient_as_bucket_view=True)
    broadcast_weights(forward, distributed)
    if strategy == "fsdp":
        fsdp.shard(forward, dtype, distributed)
    return forward


@torch.no_grad()
def broadcast_weights(module: nn.Module, distributed: Distributed) -> None:
    """Rank 0's parameters and buffers on every rank, one at a time through the rank's device."""
    for tensor in [*module.parameters(), *module.buffers()]:
        whole = tensor.detach().to(distributed.device)
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)


@contextmanager
def gradient_sync(forward: nn.Module, last: bool) -> Generator[None]:
    """Around one micro-step: gradients stay on their rank, but for the `last` one of a step, which averages them."""
    if isinstance(forward, DistributedDataParallel) and not last:
        with forward.no_sync():
            yield
        return
    fsdp.set_gradient_sync(forward, last)
    yield


def checkpoint_activations(model: nn.Module) -> None:
    """Recompute the activations of each of `model.blocks` in the backward pass, in place.

    It replaces the blocks' `forward`, not the blocks: a wrapper module would change the parameters' names, by which
    optimizers group them.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is None:
        raise ValueError(
            f"training.activation_checkpointing needs a model with .blocks; {type(model).__name__} has none"
        )
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)

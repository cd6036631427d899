"""Wrapping a model for the processes of a run."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from gpt_core.distributed import Distributed
from gpt_core.training.config import ParallelConfig


def resolve_strategy(config: ParallelConfig, distributed: Distributed) -> str:
    """`auto` by the number of processes; refuses what cannot work."""
    if config.strategy == "auto":
        return "single" if distributed.world_size == 1 else "ddp"
    if config.strategy == "single" and distributed.world_size > 1:
        raise ValueError(
            f"parallel.strategy is single, but {distributed.world_size} processes were started: each would train "
            f"the same "
            "model on its own; use ddp or auto, or start one process"
        )
    if config.strategy == "ddp" and distributed.world_size == 1:
        raise ValueError("parallel.strategy is ddp, but there is one process; start several with torchrun, or use auto")
    return config.strategy


def parallelize(forward: nn.Module, strategy: str, distributed: Distributed) -> nn.Module:
    """`forward` itself for one process, wrapped in DistributedDataParallel for ddp (rank 0's weights go to all)."""
    if strategy == "single":
        return forward
    devices = [distributed.device] if distributed.device.type == "cuda" else None
    return DistributedDataParallel(forward, device_ids=devices, gradient_as_bucket_view=True)


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

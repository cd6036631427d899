"""Fully sharded data parallelism (FSDP2): every rank keeps a slice of each parameter, gradient and optimizer tensor.

Rajbhandari et al. 2020, ZeRO stage 3 (arXiv:1910.02054); Zhao et al. 2023 (arXiv:2304.11277). A parameter is a DTensor
split by rows. Its module gathers it before forward and backward, and its gradient is reduced to the slices.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from gpt_core.distributed import Distributed

if TYPE_CHECKING:  # importing it takes seconds, which the other strategies need not pay
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy


def shard(forward: nn.Module, dtype: torch.dtype, distributed: Distributed) -> None:
    """Shard each of `forward.model.blocks` by itself and the rest together, in place, on the rank's device.

    forward: a `ModelWithLoss`. Build the optimizer afterwards: the parameters are new objects. All ranks must hold
    equal weights. A model without `.blocks` is gathered as a whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(distributed.device.type, (distributed.world_size,))
    for block in getattr(forward.model, "blocks", ()):
        fully_shard(block, mesh=mesh, mp_policy=precision(dtype), reshard_after_forward=True)
    # The rest (embedding, final norm, head) is needed first and last, so it stays gathered through a step. It stays
    # float32, and with it the sum over blocks, as in every other strategy; autocast rounds it where it is multiplied.
    fully_shard(forward, mesh=mesh, reshard_after_forward=False)


def precision(dtype: torch.dtype) -> MixedPrecisionPolicy:
    """Matrices are gathered in `dtype`, to which autocast would round them anyway: half the traffic, equal results.

    Gradients are accumulated and reduced in float32; inputs and vectors (norms, biases) keep their precision.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if dtype == torch.float32:
        return MixedPrecisionPolicy()
    if "param_dtype_override_fn" not in {field.name for field in fields(MixedPrecisionPolicy)}:  # before torch 2.15
        return MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    return MixedPrecisionPolicy(
        param_dtype=dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
        param_dtype_override_fn=lambda parameter: None if parameter.dim() >= 2 else parameter.dtype,
    )


def sharded_modules(forward: nn.Module) -> list[FSDPModule]:
    """The modules that `shard` has sharded, outermost first."""
    return [cast("FSDPModule", each) for each in forward.modules() if hasattr(each, "unshard")]


def set_gradient_sync(forward: nn.Module, sync: bool) -> None:
    """Whether the next backward pass reduces gradients over the ranks, or keeps adding them up locally, unsharded."""
    for each in sharded_modules(forward):
        each.set_requires_gradient_sync(sync, recurse=False)


def reshard(forward: nn.Module) -> None:
    """Free what a forward pass without a backward pass left gathered; nothing to do for modules that are not sharded.

    Until then `model.parameters()` are the gathered ones, which the optimizer does not know.
    """
    for each in sharded_modules(forward):
        each.reshard()


@contextmanager
def gathered(forward: nn.Module) -> Generator[None]:
    """Every rank holds all parameters whole; entering is collective, and then each may run the model on its own."""
    modules = sharded_modules(forward)
    kept = modules[1:]  # the root stays gathered after its forward pass anyway
    for each in modules:
        each.unshard()
    for each in kept:
        each.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for each in kept:
            each.set_reshard_after_forward(True, recurse=False)
        reshard(forward)

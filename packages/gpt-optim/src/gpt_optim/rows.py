"""Buckets of tensors that are updated element by element: any part of a tensor can be updated by itself."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from gpt_optim.buckets import Pending, Tensors, grad_of, state_dtype
from gpt_optim.ranks import Ranks, local_part, ranks_of_shards

SMALL = 1024
"""Tensors of fewer elements are updated by every process alike: cheaper than to send their parts around."""

Update = Callable[[Tensors, Tensors], None]
"""(weights, gradients), each in the order of the bucket's parameters"""


class Whole:
    """What this process holds of the parameters, it updates: everything, or its shards of DTensors (FSDP2).

    reduce: gradients differ between the processes of `ranks`, and are averaged here.
    """

    def __init__(self, params: Tensors, ranks: Ranks, reduce: bool = False):
        self.params, self.ranks, self.reduce = params, ranks, reduce
        self.own = slice(None)
        self._pending = Pending(params)
        self._grads: Tensors = []

    def zeros(self) -> tuple[Tensors, Tensors]:
        """Zeros for each parameter: as the optimizer's state has them, and the part of them here."""
        wholes = [torch.zeros_like(p, dtype=state_dtype(p)) for p in self.params]
        return wholes, [local_part(t) for t in wholes]

    @property
    def num_weights_here(self) -> int:
        """How many weights this process updates."""
        return sum(local_part(p).numel() for p in self.params)

    def start(self) -> None:
        if not self.reduce:
            self._grads = [grad_of(p) for p in self.params]
        elif not self._pending.is_current:
            flat = torch.cat([grad_of(p).reshape(-1) for p in self.params])
            work = dist.all_reduce(flat, op=dist.ReduceOp.AVG, group=self.ranks.group, async_op=True)
            self._pending.launch(work, flat)

    def gradients(self) -> tuple[Tensors, Tensors]:
        if self.reduce:
            flats = self._pending.wait().split([p.numel() for p in self.params])
            self._grads = [_laid_out_like(p, flat.view(p.shape)) for flat, p in zip(flats, self.params, strict=True)]
        return (self._grads, []) if isinstance(self.params[0], DTensor) else ([], self._grads)

    def update(self, update: Update) -> None:
        update([local_part(p.detach()) for p in self.params], self._grads)

    def finish(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._grads = []
        self._pending.forget()


class SharedRows:
    """ZeRO: every process holds one parameter whole, and updates its share of the first dimension.

    averaged: the gradient is equal everywhere already (DDP). Otherwise its rows are reduced to their owners here.
    What is updated is a contiguous copy of these rows, with moments to match, whatever the parameter's strides are.
    """

    def __init__(self, param: Tensor, ranks: Ranks, averaged: bool):
        self.param, self.params, self.ranks, self.averaged = param, [param], ranks, averaged
        self.own = ranks.share(param.size(0))
        self.chunk = ranks.chunk(param.size(0))
        self._pending = Pending([param])
        self._grad: Tensor | None = None
        self._gather: dist.Work | None = None

    def zeros(self) -> tuple[Tensors, Tensors]:
        rows = self.own.stop - self.own.start
        shape, dtype = (rows, *self.param.shape[1:]), state_dtype(self.param)
        local = torch.zeros(shape, dtype=dtype, device=self.param.device)
        return [self.ranks.sharded(local, self.param.shape)], [local]

    @property
    def num_weights_here(self) -> int:
        return (self.own.stop - self.own.start) * prod(self.param.shape[1:])

    def start(self) -> None:
        if self.averaged:
            self._grad = grad_of(self.param)[self.own].contiguous()
        elif not self._pending.is_current:
            grad, rows = grad_of(self.param), self.chunk * self.ranks.size
            padded = grad if len(grad) == rows and grad.is_contiguous() else self._padded(grad, rows)
            own = padded.new_empty(self.chunk, *padded.shape[1:])
            work = dist.reduce_scatter_tensor(own, padded, op=dist.ReduceOp.AVG, group=self.ranks.group, async_op=True)
            self._pending.launch(work, own)

    def gradients(self) -> tuple[Tensors, Tensors]:
        if not self.averaged:
            self._grad = self._pending.wait()[: self.own.stop - self.own.start]
        assert self._grad is not None, "start() comes first"
        return [self._grad], []

    def update(self, update: Update) -> None:
        assert self._grad is not None, "gradients() comes first"
        weight = self.param.detach()
        self._sent = self._padded(weight[self.own], self.chunk)
        update([self._sent[: self.own.stop - self.own.start]], [self._grad])
        even = self.chunk * self.ranks.size == weight.size(0) and weight.is_contiguous()
        self._all = weight if even else weight.new_empty(self.chunk * self.ranks.size, *weight.shape[1:])
        self._gather = dist.all_gather_into_tensor(self._all, self._sent, group=self.ranks.group, async_op=True)

    def finish(self) -> None:
        assert self._gather is not None, "update() comes first"
        self._gather.wait()
        if self._all.data_ptr() != self.param.data_ptr():
            self.param.detach().copy_(self._all[: self.param.size(0)])
        del self._all, self._sent
        self.forget()

    def forget(self) -> None:
        self._grad = self._gather = None
        self._pending.forget()

    def _padded(self, tensor: Tensor, rows: int) -> Tensor:
        """A contiguous copy of `tensor`, which gloo and NCCL need apart from what they write, with zeros below it."""
        buffer = tensor.new_zeros(rows, *tensor.shape[1:])
        buffer[: len(tensor)] = tensor
        return buffer


def _laid_out_like(parameter: Tensor, grad: Tensor) -> Tensor:
    """With the parameter's strides, which fused kernels take for granted."""
    return grad if parameter.is_contiguous() else torch.empty_like(parameter).copy_(grad)


def row_buckets(
    params: Tensors, ranks: Ranks, averaged: bool, sparse: Callable[[Tensor, Ranks], SharedRows] | None = None
) -> list[Whole | SharedRows]:
    """The buckets that these parameters, all DTensors or none, need on these processes.

    sparse: makes those of tables, where few rows of their gradients are not zero.
    """
    first = params[0]
    if isinstance(first, DTensor):
        return [Whole(params, ranks_of_shards(first))]
    if ranks.size == 1:
        return [Whole(params, ranks)]
    small = [p for p in params if p.numel() < SMALL]
    buckets: list[Whole | SharedRows] = [
        sparse(p, ranks) if sparse and p.dim() > 1 else SharedRows(p, ranks, averaged)
        for p in params
        if p.numel() >= SMALL
    ]
    return buckets + ([Whole(small, ranks, reduce=not averaged)] if small else [])

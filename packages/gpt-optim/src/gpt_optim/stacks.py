"""Stacks: the matrices of parameters of one shape, spread over processes by whole matrices.

Orthogonalising needs a matrix as a whole, so each has one owner, which keeps its momentum. With K matrices on W
processes the first ones own ceil(K/W) each; the rest of the last chunk is padding, never data cut off.

Shape suffixes: K matrices of a stack, k of them here, P = ceil(K/W)·W with padding, R rows, N columns, r rows here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from gpt_optim.buckets import Pending, Tensors, grad_of, state_dtype
from gpt_optim.ranks import Ranks, local_part, ranks_of_shards

PART = 2**17
"""Entries that are updated together on a CPU, if matrices are smaller than that: few enough for its caches, and enough
to be worth the calls."""

Direction = Callable[[Tensor, slice], Tensor]
"""(gradients [k, R, N], their place among the process's own matrices) -> updates [k, R, N]"""
Subtract = Callable[[Tensors, Tensors, slice], None]
"""(weights, updates, their place among the process's low bits)"""


class Stack:
    """All matrices on this process. A parameter of more than two dimensions has one for each leading index.

    rows: a parameter's matrices have so many rows each, and lie one after the other; all of its rows unless given.
    first_here: which of all matrices is the first that this process subtracts updates from.
    """

    def __init__(self, params: Tensors, ranks: Ranks, rows: int | None = None):
        self.params, self.ranks = params, ranks
        self.columns = params[0].size(-1)
        self.rows = rows or params[0].size(-2)
        self.count = len(params) * prod(params[0].shape[:-1]) // self.rows
        self.own = ranks.share(self.count)
        self.first_here = self.own.start
        self.device = local_part(params[0]).device
        self._grads: Tensors = []

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Zeros of `shape` for each matrix: as the optimizer's state has them, and the part of them here."""
        local = torch.zeros(self.own.stop - self.own.start, *shape, dtype=dtype, device=self.device)
        return self.ranks.sharded(local, (self.count, *shape)), local

    def zero_low_bits(self) -> tuple[dict[Tensor, Tensor], Tensors]:
        """Low bits for the weights that this process subtracts from: by parameter as in the state, and as a list."""
        whole, local = self.zeros((self.rows, self.columns), torch.int16)
        return {self.params[0]: whole}, list(local.unbind())

    @property
    def num_weights_here(self) -> int:
        """How many weights this process subtracts updates from."""
        return (self.own.stop - self.own.start) * self.rows * self.columns

    def start(self) -> None:
        self._grads = self._matrices([grad_of(p).contiguous() for p in self.params])

    def gradients(self) -> tuple[Tensors, Tensors]:
        return [], self._grads

    def update(self, direction: Direction, subtract: Subtract) -> None:
        weights = self._matrices([p.detach() for p in self.params])
        for place, grad_kRN in self._parts(self._grads):
            subtract(weights[place], list(direction(grad_kRN, place).unbind()), place)

    def finish(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._grads = []

    def _matrices(self, tensors: Tensors) -> Tensors:
        return [m for t in tensors for m in t.view(-1, self.rows, self.columns).unbind()]

    def _parts(self, grads: Tensors) -> Iterator[tuple[slice, Tensor]]:
        """Gradients, as many at a time as suits the device: on a CPU those that fit its caches together, large ones one
        by one without a copy; elsewhere all at once."""
        at_once = max(1, PART // (self.rows * self.columns)) if self.device.type == "cpu" else max(1, len(grads))
        for i in range(0, len(grads), at_once):
            part = grads[i : i + at_once]
            yield slice(i, i + len(part)), part[0][None] if len(part) == 1 else torch.stack(part)


class SharedStack(Stack):
    """ZeRO: every process holds all weights, and updates those of its own matrices.

    averaged: the gradients are equal everywhere already (DDP). Otherwise they are reduced to their owners here.
    """

    def __init__(self, params: Tensors, ranks: Ranks, averaged: bool, rows: int | None = None):
        super().__init__(params, ranks, rows)
        self.averaged = averaged
        self._pending = Pending(params)
        self._gather: dist.Work | None = None

    def start(self) -> None:
        if self.averaged:
            self._grads = self._matrices([grad_of(p).contiguous() for p in self.params])[self.own]
        elif not self._pending.is_current:
            chunk = self.ranks.chunk(self.count)
            grads = [grad_of(p).reshape(-1, self.rows, self.columns) for p in self.params]
            grads_PRN = grads[0]
            if len(grads) > 1 or chunk * self.ranks.size > self.count:  # one bank of just as many needs no copy
                grads_PRN = grads_PRN.new_empty(chunk * self.ranks.size, self.rows, self.columns)
                torch.cat(grads, out=grads_PRN[: self.count])
                grads_PRN[self.count :] = 0
            own_kRN = grads_PRN.new_empty(chunk, self.rows, self.columns)
            work = dist.reduce_scatter_tensor(
                own_kRN, grads_PRN, op=dist.ReduceOp.AVG, group=self.ranks.group, async_op=True
            )
            self._pending.launch(work, own_kRN)

    def gradients(self) -> tuple[Tensors, Tensors]:
        if not self.averaged:
            self._grads = list(self._pending.wait()[: self.own.stop - self.own.start].unbind())
        return self._grads, []

    def update(self, direction: Direction, subtract: Subtract) -> None:
        weights = self._matrices([p.detach() for p in self.params])
        own = weights[self.own]
        for place, grad_kRN in self._parts(self._grads):
            subtract(own[place], list(direction(grad_kRN, place).unbind()), place)
        chunk = self.ranks.chunk(self.count)
        self._own_PRN = weights[0].new_empty(chunk, self.rows, self.columns)
        if own:
            torch.stack(own, out=self._own_PRN[: len(own)])
        self._all_PRN = self._own_PRN.new_empty(chunk * self.ranks.size, self.rows, self.columns)
        self._gather = dist.all_gather_into_tensor(self._all_PRN, self._own_PRN, group=self.ranks.group, async_op=True)

    def finish(self) -> None:
        assert self._gather is not None, "update() comes first"
        self._gather.wait()
        weights = self._matrices([p.detach() for p in self.params])
        torch._foreach_copy_(weights, list(self._all_PRN[: self.count].unbind()))
        del self._all_PRN, self._own_PRN
        self.forget()

    def forget(self) -> None:
        super().forget()
        self._pending.forget()


class DTensorStack(Stack):
    """FSDP2: every process holds some rows of every weight. Rows of gradients go to the matrices' owners, rows of
    updates come back. A process never has other matrices whole in its memory than its own.
    """

    def __init__(self, params: Tensors, ranks: Ranks):
        super().__init__(params, ranks)
        self.rows_here = ranks.shares(self.rows)
        self.first_here = 0
        self._pending = Pending(params)
        self._returning = Pending([])

    def zero_low_bits(self) -> tuple[dict[Tensor, Tensor], Tensors]:
        by_param = {p: torch.zeros_like(p, dtype=torch.int16) for p in self.params}
        return by_param, [local_part(low) for low in by_param.values()]

    @property
    def num_weights_here(self) -> int:
        return self.count * self.rows_here[self.ranks.rank] * self.columns

    def start(self) -> None:
        if self._pending.is_current:
            return
        self._grads = []
        r, owned = self.rows_here[self.ranks.rank], self.ranks.shares(self.count)
        own = owned[self.ranks.rank]
        sent = torch.cat([grad_of(p).reshape(-1) for p in self.params])
        to = [k * r * self.columns for k in owned]
        back = [own * rows * self.columns for rows in self.rows_here]
        self._pending.launch(*self._exchange(sent, to, back))

    def gradients(self) -> tuple[Tensors, Tensors]:
        received, own = self._pending.wait(), self.own.stop - self.own.start
        if self._grads:  # put together before, perhaps clipped since
            return self._grads, []
        pieces = received.split([own * rows * self.columns for rows in self.rows_here])
        shapes = [(own, rows, self.columns) for rows in self.rows_here]
        whole_kRN = torch.cat([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)], dim=1)
        self._grads = list(whole_kRN.unbind())
        return self._grads, []

    def update(self, direction: Direction, subtract: Subtract) -> None:
        r, owned = self.rows_here[self.ranks.rank], self.ranks.shares(self.count)
        updates = [u for place, grad_kRN in self._parts(self._grads) for u in direction(grad_kRN, place).unbind()]
        dtype = state_dtype(self.params[0])  # on all processes, also where there is nothing to send
        empty = torch.empty(0, dtype=dtype, device=self.device)
        pieces_by_rank = zip(*(u.split(self.rows_here) for u in updates), strict=True) if updates else [[]] * len(owned)
        sent = torch.cat([piece.reshape(-1).to(dtype) for pieces in pieces_by_rank for piece in pieces] or [empty])
        to = [len(updates) * rows * self.columns for rows in self.rows_here]
        back = [k * r * self.columns for k in owned]
        self._subtract = subtract
        self._returning.launch(*self._exchange(sent, to, back))

    def finish(self) -> None:
        r = self.rows_here[self.ranks.rank]
        updates = list(self._returning.wait().view(self.count, r, self.columns).unbind())
        weights = [local_part(p.detach()) for p in self.params]
        self._subtract(weights, updates, slice(0, self.count))
        self._returning.forget()
        self.forget()

    def forget(self) -> None:
        super().forget()
        self._pending.forget()

    def _exchange(self, sent: Tensor, to: list[int], back: list[int]) -> tuple[dist.Work | None, Tensor]:
        """Send `to[i]` elements of `sent` to each rank i and receive `back[i]` from it."""
        if self.ranks.size == 1:
            return None, sent
        received = sent.new_empty(sum(back))
        work = dist.all_to_all_single(received, sent, back, to, group=self.ranks.group, async_op=True)
        return work, received


def stack_of(params: Tensors, ranks: Ranks, averaged: bool, rows: int | None = None) -> Stack:
    """The kind of stack that these parameters of one shape need. ValueError for a sharding that is not supported."""
    first = params[0]
    if isinstance(first, DTensor):
        shared = ranks_of_shards(first)
        if rows is not None:
            raise ValueError("matrix_rows is not for sharded parameters: use split, which updates the parts apart, too")
        if first.dim() != 2 or Shard(0) not in first.placements:
            raise ValueError(
                f"Muon updates sharded matrices that are split by rows, got a parameter of shape {tuple(first.shape)} "
                f"with placements {first.placements}; use fully_shard, or kind='adamw' for it"
            )
        return DTensorStack(params, shared)
    return Stack(params, ranks, rows) if ranks.size == 1 else SharedStack(params, ranks, averaged, rows)

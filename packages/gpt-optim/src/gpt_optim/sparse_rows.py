"""Rows of a table that few tokens touch: only their gradients travel.

A table of bigrams has a row for every hash value, and a batch has as many bigrams as tokens: most rows of its gradient
are zero, yet reduce_scatter moves them all. Here each process sends the others the numbers and the gradients of those
rows of theirs that it has touched (modded-nanogpt, record 71, where the numbers come from the loader; here from the
gradient itself, which costs one look at it, and makes the caller no promises to keep).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from gpt_optim.buckets import Tensors, grad_of, state_dtype
from gpt_optim.ranks import Ranks
from gpt_optim.rows import SharedRows


class SparseRows(SharedRows):
    """`SharedRows` of a gradient of which each process has few rows that are not zero.

    Contributions are added in the order of the ranks, in float32 at least: equal runs give equal bits.
    """

    def __init__(self, param: Tensor, ranks: Ranks):
        super().__init__(param, ranks, averaged=False)
        self._numbers: dist.Work | None = None

    def start(self) -> None:
        if self._pending.is_current:
            return
        self._grad = None
        grad = grad_of(self.param)
        touched = grad.flatten(1).ne(0).any(1).nonzero().flatten()  # in order, so by owner
        ends = torch.arange(1, self.ranks.size + 1, device=grad.device) * self.chunk
        sent = torch.searchsorted(touched, ends).diff(prepend=ends.new_zeros(1))
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.ranks.group)
        to, self._from = sent.tolist(), received.tolist()
        self._ids = touched.new_empty(sum(self._from))
        self._numbers = dist.all_to_all_single(
            self._ids, touched, self._from, to, group=self.ranks.group, async_op=True
        )
        rows = grad.new_empty(sum(self._from), *grad.shape[1:])
        self._sent_rows = grad[touched]
        work = dist.all_to_all_single(rows, self._sent_rows, self._from, to, group=self.ranks.group, async_op=True)
        self._pending.launch(work, rows)

    def gradients(self) -> tuple[Tensors, Tensors]:
        rows = self._pending.wait()
        if self._grad is None:  # else it was put together before, perhaps clipped since
            assert self._numbers is not None, "start() comes first"
            self._numbers.wait()
            shape = (self.own.stop - self.own.start, *self.param.shape[1:])
            self._grad = rows.new_zeros(shape, dtype=state_dtype(self.param))
            for ids, part in zip(self._ids.split(self._from), rows.split(self._from), strict=True):
                self._grad.index_add_(0, ids - self.own.start, part.to(self._grad.dtype))
            self._grad /= self.ranks.size
        return [self._grad], []

    def forget(self) -> None:
        super().forget()
        if self._numbers is not None:
            self._numbers.wait()
        self._numbers = None
        self._ids = self._sent_rows = torch.empty(0)

"""Where a group's tensors are: which of them this process updates, how gradients come and how results go.

A bucket is used in this order: `start` (launch the reduction of gradients), `gradients` (wait for it), `update`, then
`finish` (wait until every process has the new weights). All buckets start before the first one is updated, so that
communication and work overlap. Every process walks the same buckets in the same order.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from gpt_optim.ranks import Ranks, local_part

Tensors = list[Tensor]


class Bucket(Protocol):
    ranks: Ranks
    params: Tensors

    def start(self) -> None: ...

    def gradients(self) -> tuple[Tensors, Tensors]:
        """What of the averaged gradients only this process has, and what every process has alike."""
        ...

    def finish(self) -> None: ...

    def forget(self) -> None:
        """Drop gradients that were reduced and not used."""
        ...


def grad_of(parameter: Tensor) -> Tensor:
    """This process's part of the gradient. A parameter that got none has a zero gradient: every process must take
    part in every collective, and one process must do what many do."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    if parameter.grad.layout != torch.strided:
        raise ValueError("gradients must be dense: build nn.Embedding with sparse=False")
    return local_part(parameter.grad)


def state_dtype(parameter: Tensor) -> torch.dtype:
    """float32 for narrower parameters too: a moving average in bfloat16 stops moving."""
    return torch.promote_types(parameter.dtype, torch.float32)


class Pending:
    """Gradients under way in a buffer of their own; the parameters' `.grad` is freed once it is in there.

    Whether they have been launched must be the same on all processes, so it depends on what was called, never on which
    gradients there are: a process may have none.
    """

    def __init__(self, params: Tensors):
        self.params = params
        self.work: dist.Work | None = None
        self.held: Tensor | None = None

    @property
    def is_current(self) -> bool:
        """RuntimeError where a backward pass came after the launch, before it was used or given up."""
        if self.held is not None and any(p.grad is not None for p in self.params):
            raise RuntimeError(
                "there are new gradients, but those that reduce_gradients or clip_grad_norm_ averaged were neither "
                "used by step() nor given up by the optimizer's zero_grad()"
            )
        return self.held is not None

    def launch(self, work: dist.Work | None, result: Tensor) -> None:
        self.work, self.held = work, result
        for p in self.params:
            p.grad = None

    def wait(self) -> Tensor:
        assert self.held is not None, "start() comes first"
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.held

    def forget(self) -> None:
        if self.work is not None:
            self.work.wait()
        self.work = self.held = None

"""Loss on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from gpt_core.distributed import Distributed
from gpt_core.training.fsdp import reshard
from gpt_core.training.losses import Loss
from gpt_core.training.state import Loader


@dataclass(frozen=True)
class Evaluation:
    """Means over all targets seen by all ranks."""

    loss: float
    accuracy: float
    targets: int
    bits_per_byte: float | None
    """Of the targets that are text; None where the loss does not say, or there is no text."""


@torch.no_grad()
def evaluate(
    forward: nn.Module,
    data: Loader,
    *,
    loss: Loss,
    iterations: int,
    distributed: Distributed,
    autocast: Callable[[], AbstractContextManager],
) -> Evaluation:
    """Evaluate on `iterations` micro-batches in all, shared by the ranks; `data` is left where it was found.

    So every evaluation of a run sees the same data, in the precision of training. `forward` returns to its mode.
    """
    position = data.state_dict()
    was_training = forward.training
    forward.eval()
    # one process's share, rounded up so that ranks never disagree on the number of forward passes
    share = -(-iterations // distributed.world_size)
    totals = torch.zeros(6, dtype=torch.float64, device=distributed.device)
    for _ in range(share):
        batch = next(data).to(distributed.device, non_blocking=True)
        with autocast():
            sums = forward(batch.inputs, batch.targets, getattr(batch, "cu_seqlens", None))
        totals[:4] += torch.stack([sums.loss, loss.count(batch.targets), sums.correct, sums.items]).double()
        if sums.text is not None:
            totals[4:] += sums.text.double()
    reshard(forward)
    forward.train(was_training)
    data.load_state_dict(position)
    loss_sum, count, correct, items, nats, size = distributed.sum(totals.tolist())
    if not count:
        raise ValueError("the evaluation data has no targets: every one of them is masked")
    bits = nats / math.log(2) / size if size else None
    return Evaluation(loss_sum / count, correct / max(items, 1.0), int(count), bits)

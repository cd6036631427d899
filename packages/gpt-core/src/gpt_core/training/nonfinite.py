"""Steps that are skipped because their gradient is not finite: how many in a row a run bears, and what it says."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from gpt_core.training.losses import Loss
from gpt_core.training.state import Batch, StepResult


class TrainingDiverged(ValueError):
    """The gradient was not finite too many times in a row."""


@dataclass(frozen=True)
class SkippedStep:
    """One of them, as this rank saw it."""

    step: int
    lr: float
    grad_norm: float | None
    batches: tuple[tuple[str, float], ...]
    """`batch_id` and mean loss per target of each micro-batch."""

    @classmethod
    def of(cls, step: int, result: StepResult, loss: Loss, batches: Sequence[Batch], sums: Sequence[Tensor]) -> Self:
        """sums: `loss` over each micro-batch's targets, 0-d."""
        counts = [max(int(loss.count(batch.targets)), 1) for batch in batches]
        means = [float(total) / count for total, count in zip(sums, counts, strict=True)]
        return cls(step, result.lr, result.grad_norm, tuple(zip(map(batch_id, batches), means, strict=True)))

    def __str__(self) -> str:
        """Names the micro-batches whose loss is not finite; if all are finite, the first three."""
        broken = [pair for pair in self.batches if not math.isfinite(pair[1])]
        shown = (broken or list(self.batches))[:3]
        more = "" if len(shown) == len(broken or self.batches) else ", ..."
        losses = ", ".join(f"{name} with loss {loss:.4g}" for name, loss in shown)
        return f"step {self.step}: learning rate {self.lr:.2e}, norm {self.grad_norm}, batch {losses}{more}"


def batch_id(batch: Batch) -> str:
    """Eight hexadecimal digits for the input ids of a batch, equal wherever the same batch is drawn (CRC-32)."""
    ids = batch.inputs.detach().to("cpu", torch.int64).contiguous()
    return f"{zlib.crc32(ids.numpy().tobytes()):08x}"


def allowed_in_a_row(configured: int | None, dtype: torch.dtype) -> int:
    """At how many skipped steps in a row a run ends: as configured, else 3, or 20 in float16.

    float16's loss scale begins at 65536 and halves with each skipped step: 16 of them only bring it down to 1.
    """
    if configured is not None:
        return configured
    return 20 if dtype == torch.float16 else 3


def diagnosis(model: nn.Module, skipped: Sequence[SkippedStep]) -> str:
    """Why the run was stopped, where it broke, and what usually helps. One line."""
    bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    broken = f"parameters with non-finite values: {', '.join(bad[:5])}" if bad else "all parameters are still finite"
    last = skipped[-1]
    return (
        f"the gradient was not finite {len(skipped)} steps in a row, up to step {last.step} "
        f"({'; '.join(map(str, skipped[-3:]))}); {broken}. The checkpoints saved before are good: resume from one with "
        "a lower learning rate or a longer warm-up, with bfloat16 or float32 instead of float16, or with qk_norm, "
        "z_loss or logit_softcap (docs/stability.md)"
    )

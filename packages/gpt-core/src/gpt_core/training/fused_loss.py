"""Whether a run's loss is worked out from the hidden vectors, so that all logits are never held."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from gpt_core.training.losses import FusedLoss, Loss
from gpt_kernels import linear_backend

SMALLEST_VOCABULARY, FEWEST_ROWS = 4096, 1024
"""From here on the fused loss is no slower on CPUs (docs/benchmarks.md); below, logits take little room anyway."""


class LossChoice(NamedTuple):
    fused: bool
    why: str
    """In words, for the log."""


def choose(
    setting: bool | Literal["auto"],
    model: nn.Module,
    loss: Loss,
    *,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
) -> LossChoice:
    """What `training.fused_loss` means for this model and loss; ask before the model is sharded.

    rows: tokens of a micro-step. dtype, device: of the computation.
    Raises ValueError where the setting is True and the model or the loss cannot do it.
    """
    head_weight: Any = getattr(model, "head_weight", None)
    weight_VD = head_weight and head_weight()
    if weight_VD is None or not _is_fused(loss):
        lacking = type(model if weight_VD is None else loss).__name__
        if setting is True:
            raise ValueError(
                f"training.fused_loss is true, but {lacking} only works with all logits; use training.fused_loss=auto"
            )
        return LossChoice(False, f"from all logits, as {lacking} asks for")
    if setting != "auto":
        return LossChoice(setting, f"{'fused with the head' if setting else 'from all logits'}, as configured")
    vocabulary = len(weight_VD)
    if vocabulary < SMALLEST_VOCABULARY or rows < FEWEST_ROWS:
        return LossChoice(False, f"from all logits: those of {rows} rows x {vocabulary} tokens take little room")
    if device.type == "cpu" and dtype == torch.float32 and linear_backend(weight_VD, weight_VD) == "onednn":
        return LossChoice(False, "from all logits: this processor multiplies them faster at once, with oneDNN")
    return LossChoice(True, f"fused with the head: never all logits of {rows} rows x {vocabulary} tokens")


def _is_fused(loss: Loss) -> bool:
    """Whether the loss has both forms from one class: who overrides how logits are judged means the fused form too."""
    if not isinstance(loss, FusedLoss):
        return False
    says = lambda name: next(kind for kind in type(loss).__mro__ if name in vars(kind))
    return says("__call__") is says("of_hidden")

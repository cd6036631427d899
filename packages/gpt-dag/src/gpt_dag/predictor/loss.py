"""The loss of tags: a cross-entropy per column of every token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_core.training.losses import LossSums
from gpt_dag.tags import COLUMNS, IGNORED, ROLE

if TYPE_CHECKING:
    from gpt_dag.predictor.model import TagLogits


class TagLoss:
    """Weighted cross-entropies, summed over tokens and columns; a `gpt_core` Loss.

    Targets are (B, T, 6) as in `gpt_dag.tags`. The mean is over tokens, all of which have a role. An example is right
    when every one of its tags is.
    focus: the exponent of a focal loss (Lin et al. 2017, arXiv:1708.02002), which scales the loss of a tag by
    (1 - p)^focus; 0: plain cross-entropy. What is reported is always plain.
    """

    counts_tokens = True
    """What `count` counts are the tokens that a step works on: padding is left out."""

    def __init__(self, weights: tuple[float, ...], focus: float = 0.0):
        if len(weights) != len(COLUMNS) or min(weights) < 0:
            raise ValueError(f"weights of {', '.join(COLUMNS)} must not be negative, got {weights}")
        if focus < 0:
            raise ValueError(f"focus is an exponent, 0 (off) or positive, got {focus}")
        self.weights, self.focus = weights, focus

    def count(self, targets: Tensor) -> Tensor:
        return (targets[..., ROLE] != IGNORED).sum()

    def __call__(self, logits: TagLogits, targets: Tensor, accuracy: bool = False) -> LossSums:
        tags = logits.packing.pack(targets)  # (n, 6)
        objective = loss = logits.packed.new_zeros(())
        wrong = torch.zeros(len(tags), dtype=torch.bool, device=tags.device)
        for column, (weight, scores) in enumerate(zip(self.weights, logits.columns, strict=True)):
            wanted = tags[:, column]
            # a mask, not a selection: the number of targets stays on the device
            each = F.cross_entropy(scores.float(), wanted, ignore_index=IGNORED, reduction="none")
            loss = loss + weight * each.detach().sum()
            objective = objective + weight * (each if not self.focus else focal(each, self.focus)).sum()
            if accuracy:
                wrong |= (scores.argmax(-1) != wanted) & (wanted != IGNORED)
        zero = loss.new_zeros(())
        if not accuracy:
            return LossSums(objective, loss, zero, zero)
        examples = (targets[..., ROLE] != IGNORED).any(1)
        rows = logits.packing.row
        failed = torch.zeros(len(examples), dtype=torch.int64, device=tags.device).index_add(0, rows, wrong.long())
        return LossSums(objective, loss, (examples & (failed == 0)).sum(), examples.sum())


def focal(cross_entropy: Tensor, exponent: float) -> Tensor:
    """(1 - p)^exponent · -ln p, from -ln p."""
    return (-torch.expm1(-cross_entropy)).clamp(min=1e-12) ** exponent * cross_entropy


def tag_loss(
    role: float = 1.0,
    place: float = 2.0,
    value: float = 1.0,
    negative: float = 1.0,
    percent: float = 1.0,
    operator: float = 1.0,
    focus: float = 0.0,
) -> TagLoss:
    """`TagLoss` with the weight of each column."""
    return TagLoss((role, place, value, negative, percent, operator), focus)

"""Cross-entropy of answers, and how many of them are right.

B rows, T positions, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gpt_core.training.losses import IGNORE, LossSums


class AnswerLoss:
    """Cross-entropy of every target; a row's answer is right when the likeliest token is right at all of its targets.

    With one answer per row and its end among the targets, as `gpt_dag.answers` makes them, that is exact match of the
    greedily generated answer: where every likeliest token is right, generation takes the same way.
    """

    def count(self, targets_BT: Tensor) -> Tensor:
        return (targets_BT != IGNORE).sum()

    def __call__(self, logits_BTV: Tensor, targets_BT: Tensor, accuracy: bool = False) -> LossSums:
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction="sum")
        zero = loss.new_zeros(())
        if not accuracy:
            return LossSums(loss, loss.detach(), zero, zero)
        right, asked = rows_right(logits_BTV, targets_BT)
        return LossSums(loss, loss.detach(), zero + right.sum(), zero + asked.sum())


def rows_right(logits_BTV: Tensor, targets_BT: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) bool: rows with targets of which all are the likeliest, and rows with targets."""
    counted = targets_BT != IGNORE
    wrong = counted & (logits_BTV.argmax(-1) != targets_BT)
    asked = counted.any(1)
    return asked & ~wrong.any(1), asked


def answer_loss() -> AnswerLoss:
    """Cross-entropy and exact match of "expression = answer" rows."""
    return AnswerLoss()

"""A model and its loss as one module, so that compilation and DDP see both."""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from gpt_core.training.losses import FusedLoss, Loss, LossSums

ROWS = 512
"""Rows whose logits are held at a time where they are counted and not trained on."""


class ModelWithLoss(nn.Module):
    """forward(ids (B, T), targets) -> LossSums; the logits never leave it.

    fused: let the loss make and drop the logits a few rows at a time. The model must have `hidden`, `logits`,
    `head_weight()` and `.config`, the loss `of_hidden` (see `fused_loss.choose`); while head_weight() is None, all
    logits are made as without.
    cu_seqlens: the documents of a packed row, for models that have `supports_packing`; ValueError for others.
    Accuracy is worked out in evaluation mode only: an argmax over the vocabulary per position is not free.
    """

    def __init__(self, model: nn.Module, loss: Loss, *, fused: bool = False):
        super().__init__()
        self.model = model
        self.loss = loss
        self.fused = fused

    def forward(self, ids: Tensor, targets: Tensor, cu_seqlens: Tensor | None = None) -> LossSums:
        model: Any = self.model
        weight_VD = model.head_weight() if self.fused else None
        if weight_VD is None:
            return self.loss(self._call(model, ids, cu_seqlens), targets, accuracy=not self.training)
        x_BTD = self._call(model.hidden, ids, cu_seqlens)
        if self.training:
            loss = cast(FusedLoss, self.loss)
            return loss.of_hidden(x_BTD, weight_VD, targets, softcap=model.config.logit_softcap)
        rows = zip(x_BTD.flatten(0, 1).split(ROWS), targets.flatten().split(ROWS), strict=True)
        return LossSums.total([self.loss(model.logits(x_RD), targets_R, accuracy=True) for x_RD, targets_R in rows])

    def _call(self, function: Callable[..., Tensor], ids: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        """function: the model, or its `hidden`."""
        if cu_seqlens is None:
            return function(ids)
        if not getattr(self.model, "supports_packing", False):
            raise ValueError(
                f"{type(self.model).__name__} cannot keep packed documents apart; train it with a loader of plain rows "
                "(random_windows, best_fit, ...)"
            )
        return function(ids, cu_seqlens=cu_seqlens)

"""A model and its loss as one module, so that compilation and DDP see both."""

from torch import Tensor, nn

from gpt_core.training.losses import Loss, LossSums


class ModelWithLoss(nn.Module):
    """forward(ids (B, T), targets) -> LossSums; the logits never leave it.

    cu_seqlens: the documents of a packed row, for models that have `supports_packing`; ValueError for others.
    Accuracy is worked out in evaluation mode only: an argmax over the vocabulary per position is not free.
    """

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, ids: Tensor, targets: Tensor, cu_seqlens: Tensor | None = None) -> LossSums:
        return self.loss(self._logits(ids, cu_seqlens), targets, accuracy=not self.training)

    def _logits(self, ids: Tensor, cu_seqlens: Tensor | None) -> Tensor:
        if cu_seqlens is None:
            return self.model(ids)
        if not getattr(self.model, "supports_packing", False):
            raise ValueError(
                f"{type(self.model).__name__} cannot keep packed documents apart; train it with a loader of plain rows "
                "(random_windows, best_fit, ...)"
            )
        return self.model(ids, cu_seqlens=cu_seqlens)

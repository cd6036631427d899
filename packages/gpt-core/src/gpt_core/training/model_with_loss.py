"""A model and its loss as one module, so that compilation and DDP see both."""

from torch import Tensor, nn

from gpt_core.training.losses import Loss, LossSums


class ModelWithLoss(nn.Module):
    """forward(ids (B, T), targets (B, T)) -> LossSums; the logits never leave it.

    Accuracy is worked out in evaluation mode only: an argmax over the vocabulary per position is not free.
    """

    def __init__(self, model: nn.Module, loss: Loss):
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, ids: Tensor, targets: Tensor) -> LossSums:
        return self.loss(self.model(ids), targets, accuracy=not self.training)

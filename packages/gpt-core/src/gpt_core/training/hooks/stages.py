"""Make each step, and the validation before it, that of its stage."""

from __future__ import annotations

from typing import Any

from gpt_core.training.stages import Stages, check_parts
from gpt_core.training.state import Hook, TrainState


class FollowStages(Hook):
    """Sets the model's windows, the loss's weights and the loader's sizes to those of `stages.at(state.step)`.

    Put it first: validation after step s is validation before the next one, of whose stage it is. The model remembers
    the long window that its positions were last stretched for, so a resumed run goes on as it was.
    model: has `set_windows(short, long, yarn)` if windows change. loss: has `set_weights(weights)` if weights do.
    Raises ValueError for a model, a loss or a loader that cannot change.
    """

    def __init__(self, stages: Stages, model: Any, loss: Any, loader: Any):
        self.stages, self.model, self.loss, self.loader = stages, model, loss, loader
        check_parts(stages, model, loss, loader)
        self._sizes: tuple[int | None, ...] = ()

    def on_start(self, state: TrainState) -> None:
        self._sizes = ()  # a loader that was given another state may have others
        self.apply(state.step)

    def on_step(self, state: TrainState) -> None:
        self.apply(state.step)

    def apply(self, step: int) -> None:
        now = self.stages.at(step)
        if now.windows is not None:
            self.model.set_windows(*now.windows, yarn=now.yarn)
        if now.token_weights is not None:
            self.loss.set_weights(now.token_weights)
        sizes = (now.device_batch_size, now.max_document, now.max_documents)
        if any(sizes) and sizes != self._sizes and step < self.stages.max_steps:
            self.loader.resize(*sizes)
            self._sizes = sizes

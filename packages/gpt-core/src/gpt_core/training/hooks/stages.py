"""Make each step, and the validation before it, that of its stage."""

from __future__ import annotations

from typing import Any

from gpt_core.training.stages import Settings, Stages
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


def check_parts(stages: Stages, model: Any, loss: Any, loader: Any) -> None:
    """ValueError where a part cannot do what the stages ask of it."""
    first: Settings = stages.at(0)
    sizes = any((first.device_batch_size, first.max_document, first.max_documents))
    wanted = [
        ("windows", first.windows is not None, model, "set_windows", "gpt_core.models.speedrun.speedrun"),
        ("token_weights", first.token_weights is not None, loss, "set_weights", "gpt_core.models.speedrun_loss"),
        ("device_batch_size, max_document and max_documents", sizes, loader, "resize", "gpt_data.document_aligned"),
    ]
    for key, asked, part, method, example in wanted:
        if asked and not hasattr(part, method):
            raise ValueError(
                f"stages.{key} change from stage to stage, but {type(part).__name__} has no {method}; use one that "
                f"has it ({example}), or set stages.{key} to null"
            )
    start = getattr(getattr(model, "config", None), "window_long", None)
    if first.windows is not None and start is not None and start != first.windows[1]:
        raise ValueError(
            f"the run begins with a long window of {first.windows[1]} tokens (stages.windows[0] in blocks of "
            f"{stages.config.block}), the model's positions with one of {start} (model.module_kwargs.window_long): "
            "set both alike, for positions are stretched by their ratio"
        )

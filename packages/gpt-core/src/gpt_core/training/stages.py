"""Training in stages: batch size, attention windows, loss weights and learning rate that change with the step.

Source: KellerJordan/modded-nanogpt's records; the numbers of one of them are in apps/speedrun/configs.

    scheduled steps = training.max_steps - extension_steps; stage i takes its share `durations[i]` of them and ends at
    round(scheduled · (durations[0] + ... + durations[i]) / sum(durations)).
    The extension follows with the last stage's batches and loss weights, and windows of its own.
    After the last step the final windows hold, for validation and for whoever generates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any


@dataclass(frozen=True)
class StagesConfig:
    """What changes from stage to stage. A list has one value for each stage, or one for all; null: does not change."""

    durations: tuple[float, ...] = ()
    """Relative lengths of the stages; empty: no stages."""
    extension_steps: int = 0
    """Steps of training.max_steps after the last stage, at the end of its learning rate."""
    device_batch_size: tuple[int, ...] | None = None
    """Sequences per micro-step and process; the loader must be able to change its size (gpt_data.document_aligned)."""
    max_document: tuple[int, ...] | None = None
    """Tokens of a document that are used."""
    max_documents: tuple[int, ...] | None = None
    """Length of a micro-batch's `cu_seqlens`, one more than the documents there is room for."""
    windows: tuple[tuple[int, int], ...] | None = None
    """Short and long attention window, in blocks; the model must have `set_windows`."""
    extension_windows: tuple[int, int] | None = None
    final_windows: tuple[int, int] | None = None
    """From the last step on. Positions are not stretched for them."""
    block: int = 128
    """Tokens of a block."""
    yarn: bool = True
    """Stretch the rotary frequencies whenever the long window changes (YaRN, arXiv:2309.00071)."""
    token_weights: tuple[tuple[float, ...], ...] | None = None
    """Weights of the next token, the one after it, ... in the loss, at the begin of each stage."""
    token_weights_end: tuple[tuple[float, ...], ...] | None = None
    """What they go to linearly during the stage; null: they stay."""
    lr: tuple[float, ...] | None = None
    """Multiples of the learning rate, for a scheduler that takes `factors` and `boundaries` (gpt_optim's stages)."""
    untie_last: bool = False
    """Embedding and head part with the last stage: the optimizer gets its first step as `untie_at`."""
    warm_up: bool | None = None
    """Take the steps around every boundary once before the run, to compile what they need, and put everything back;
    null: if anything is compiled."""

    def __post_init__(self) -> None:
        columns = {name: getattr(self, name) for name in COLUMNS if getattr(self, name) is not None}
        if not self.durations:
            given = [*columns, *(name for name in ("extension_windows", "final_windows") if getattr(self, name))]
            given += [name for name in ("extension_steps", "untie_last") if getattr(self, name)]
            if given:
                raise ValueError(f"stages.durations is empty, but stages.{given[0]} is set")
            return
        if min(self.durations) <= 0 or self.extension_steps < 0 or self.block < 1:
            raise ValueError(
                f"stages need positive durations and block, and no fewer than 0 extension_steps; got {self.durations}, "
                f"{self.block} and {self.extension_steps}"
            )
        for name, column in columns.items():
            if len(column) not in (1, len(self.durations)):
                raise ValueError(
                    f"stages.{name} has {len(column)} values for {len(self.durations)} stages; give one for each, or "
                    "one for all"
                )
        self._check_values()

    def _check_values(self) -> None:
        if self.windows is None and (self.extension_windows or self.final_windows):
            raise ValueError("stages.extension_windows and final_windows go with stages.windows, which is not set")
        windows = [*(self.windows or ()), self.extension_windows or (0, 0), self.final_windows or (0, 0)]
        sizes = [*(self.device_batch_size or ()), *(self.max_document or ()), *(self.max_documents or ())]
        if any(short > long or short < 0 for short, long in windows) or any(size < 1 for size in sizes):
            raise ValueError(
                "stages: a window pair is (short, long) with 0 <= short <= long, sizes are at least 1; got windows "
                f"{windows}, device_batch_size {self.device_batch_size}, max_document {self.max_document}"
            )
        if self.lr is not None and min(self.lr) <= 0:
            raise ValueError(f"stages.lr must be positive, got {self.lr}")
        starts, ends = self.token_weights, self.token_weights_end
        if starts is None and ends is not None:
            raise ValueError("stages.token_weights_end goes with stages.token_weights, which is not set")
        if starts is not None and (not all(starts) or min(w for weights in starts for w in weights) < 0):
            raise ValueError(f"stages.token_weights are lists of weights, none negative, got {starts}")
        if starts is not None and ends is not None and [len(w) for w in starts] != [len(w) for w in ends]:
            raise ValueError(f"stages.token_weights and token_weights_end differ in length: {starts} and {ends}")


COLUMNS = ("device_batch_size", "max_document", "max_documents", "windows", "token_weights", "token_weights_end", "lr")


@dataclass(frozen=True)
class Settings:
    """What holds for one step, and for the validation before it. None: as the run was configured."""

    device_batch_size: int | None = None
    max_document: int | None = None
    max_documents: int | None = None
    windows: tuple[int, int] | None = None
    """Short and long, in tokens."""
    yarn: bool = False
    """Whether positions are stretched if the long window is new."""
    token_weights: tuple[float, ...] | None = None


class Stages:
    """The stages of a run of `max_steps`; `at(step)` is a pure function of the step about to be taken.

    Raises ValueError where a stage would have no step.
    """

    def __init__(self, config: StagesConfig, max_steps: int):
        self.config, self.max_steps = config, max_steps
        self.scheduled = max_steps - config.extension_steps
        total = sum(config.durations)
        self.ends = [round(self.scheduled * share / total) for share in accumulate(config.durations)]
        if any(begin >= end for begin, end in pairwise([0, *self.ends])):
            raise ValueError(
                f"stages.durations {config.durations} cannot be cut out of {self.scheduled} steps (training.max_steps "
                f"{max_steps} less stages.extension_steps {config.extension_steps}): a stage would have none"
            )

    def __bool__(self) -> bool:
        return bool(self.config.durations)

    @property
    def boundaries(self) -> list[int]:
        """First steps of all stages but the first, without the extension."""
        return self.ends[:-1]

    def index(self, step: int) -> int:
        """Of the stage that `step` is in; the extension counts as the last one."""
        return min(sum(step >= end for end in self.ends), len(self.ends) - 1)

    def at(self, step: int) -> Settings:
        if not self:
            return Settings()
        config, stage = self.config, self.index(step)
        windows = self._windows(step, stage)
        final = step >= self.max_steps and config.final_windows is not None
        return Settings(
            device_batch_size=_of(config.device_batch_size, stage),
            max_document=_of(config.max_document, stage),
            max_documents=_of(config.max_documents, stage),
            windows=windows and (windows[0] * config.block, windows[1] * config.block),
            yarn=config.yarn and not final,
            token_weights=self._token_weights(step, stage),
        )

    def _windows(self, step: int, stage: int) -> tuple[int, int] | None:
        if step >= self.max_steps and self.config.final_windows is not None:
            return self.config.final_windows
        if step >= self.scheduled and self.config.extension_windows is not None:
            return self.config.extension_windows
        return _of(self.config.windows, stage)

    def _token_weights(self, step: int, stage: int) -> tuple[float, ...] | None:
        """Linear from begin to end of the stage, where they stay."""
        start = _of(self.config.token_weights, stage)
        if start is None or self.config.token_weights_end is None:
            return start
        end = _of(self.config.token_weights_end, stage)
        begin = 0 if stage == 0 else self.ends[stage - 1]
        t = min(1.0, (step - begin) / (self.ends[stage] - begin))
        return tuple(a * (1 - t) + b * t for a, b in zip(start, end, strict=True))

    def schedule_arguments(self) -> dict[str, Any]:
        """For the factory of the learning rate, which has reached its end when the extension begins."""
        if not self or self.config.lr is None:
            return {"max_steps": self.scheduled}
        factors = [_of(self.config.lr, stage) for stage in range(len(self.ends))]
        return {"max_steps": self.scheduled, "factors": factors, "boundaries": self.boundaries}

    def optimizer_arguments(self) -> dict[str, Any]:
        """For the factory of the optimizer."""
        return {"untie_at": self.boundaries[-1] if self.boundaries else 0} if self.config.untie_last else {}

    def around_boundaries(self, first: int = 0) -> list[int]:
        """Three steps from `first` on, and those before, at and after each change that comes, the extension's too:
        all shapes that the run still meets."""
        changes = [*self.boundaries, *([self.scheduled] if self.config.extension_steps else [])]
        steps = {first, first + 1, first + 2} | {change + i for change in changes for i in (-1, 0, 1)}
        return sorted(step for step in steps if first <= step < self.max_steps)


def _of(column: Sequence[Any] | None, stage: int) -> Any:
    return None if column is None else column[0] if len(column) == 1 else column[stage]


def check_parts(stages: Stages, model: Any, loss: Any, loader: Any) -> None:
    """ValueError where a part cannot do what the stages ask of it."""
    first = stages.at(0)
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

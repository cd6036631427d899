"""What a run consists of while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.training.scalers import Scaler

Status = Literal["running", "completed", "interrupted"]


class Batch(Protocol):
    """What a loader yields: inputs (B, T) and targets (B, T) of token ids, -1 where no target counts.

    May have `cu_seqlens`: the documents of one packed row, (D+1,) int32, or None.
    """

    inputs: Tensor
    targets: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Self: ...


class Loader(Protocol):
    """An endless iterator of batches; its state describes the batches handed out so far."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class StepResult:
    """Measurements of the last step. Sums are this rank's; `count` and `tokens` are over all ranks."""

    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    auxiliary_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    """What was differentiated beyond the loss."""
    count: float = 0.0
    tokens: int = 0
    grad_norm: float | None = 0.0
    """None: the scaler does not measure it."""
    lr: float = 0.0
    seconds: float = 0.0
    data_seconds: float = 0.0
    finite: bool = True


@dataclass
class TrainState:
    """Everything that a checkpoint restores, and the last step's measurements.

    `model` is the bare module: never the compiled, DDP or loss wrapper around it.
    """

    model: nn.Module
    optimizer: Optimizer
    scaler: Scaler
    data: Loader
    step: int = 0
    """Optimizer steps taken (skipped ones included)."""
    tokens: int = 0
    """Tokens trained on, over all ranks."""
    val_loss: float | None = None
    val_step: int = -1
    """The step that `val_loss` belongs to."""
    best_val_loss: float | None = None
    nonfinite_steps: int = 0
    """Steps skipped because of a non-finite gradient."""
    train_seconds: float = 0.0
    """Time spent in steps: without evaluation, saving and compilation warm-up."""
    cpu_seconds: float = 0.0
    """This process's CPU time in the same steps, over all its threads: what a run on a shared machine costs."""
    status: Status = "running"
    last: StepResult = field(default_factory=StepResult)

    def meta(self) -> dict[str, Any]:
        """What a checkpoint's meta.json records of the state, besides weights and optimizer."""
        return {
            "tokens": self.tokens,
            "val_loss": self._current_val_loss(),
            "best_val_loss": self.best_val_loss,
            "nonfinite_steps": self.nonfinite_steps,
            "train_seconds": self.train_seconds,
            "cpu_seconds": self.cpu_seconds,
            "scaler": self.scaler.state_dict(),
        }

    def _current_val_loss(self) -> float | None:
        """None where this step was not evaluated, or diverged: JSON has no NaN."""
        current = self.val_step == self.step and self.val_loss is not None and math.isfinite(self.val_loss)
        return self.val_loss if current else None

    def restore(self, meta: dict[str, Any]) -> None:
        """Continue from a checkpoint's meta.json."""
        self.step, self.tokens = meta["step"], meta["tokens"]
        self.best_val_loss, self.nonfinite_steps = meta["best_val_loss"], meta["nonfinite_steps"]
        self.train_seconds, self.cpu_seconds = meta["train_seconds"], meta.get("cpu_seconds", 0.0)
        self.scaler.load_state_dict(meta["scaler"])


class Hook:
    """Something that happens beside the training steps. Override what is needed; the loop calls hooks in their order.

    Every rank calls every hook at the same step, so a hook may communicate.
    """

    def on_start(self, state: TrainState) -> None:
        """Before the first step of this process."""

    def on_gradients(self, state: TrainState) -> None:
        """After the backward passes: gradients are reduced over ranks and unscaled, not yet clipped."""

    def on_step(self, state: TrainState) -> None:
        """After a step; `state.step` counts it."""

    def on_end(self, state: TrainState) -> None:
        """After the last step of this process, `state.status` says why it is the last."""

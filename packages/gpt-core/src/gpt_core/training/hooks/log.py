"""Report training metrics."""

from __future__ import annotations

import math
from typing import Any

import torch

from gpt_core.distributed import Distributed
from gpt_core.monitor import MFUMeter, Sinks, StabilityMonitor, flatten, gradient_stats, memory_stats
from gpt_core.training.config import LoggingConfig
from gpt_core.training.nonfinite import TrainingDiverged
from gpt_core.training.state import Hook, TrainState


class Log(Hook):
    """Every `log_every` steps: the mean loss since the last report over all ranks, and what the steps cost.

    Times are of the steps alone. Between reports nothing is fetched from the device.
    """

    def __init__(self, config: LoggingConfig, sinks: Sinks, distributed: Distributed, mfu: MFUMeter, max_steps: int):
        self.config, self.sinks, self.distributed, self.mfu, self.max_steps = config, sinks, distributed, mfu, max_steps
        self.stability = StabilityMonitor()
        self._gradients: dict[str, Any] = {}
        self._reset()

    def _reset(self) -> None:
        self._sums: torch.Tensor | None = None  # of the loss, of what is differentiated beyond it
        self._count = self._seconds = self._data_seconds = 0.0
        self._flops = 0.0
        self._steps = self._tokens = 0

    def on_start(self, state: TrainState) -> None:
        self._follow(state)

    def _follow(self, state: TrainState) -> None:
        """The FLOPs of the next step: the windows of a model may have changed."""
        if (now := getattr(state.model, "architecture", None)) is not None:
            self.mfu.follow(now)

    def on_gradients(self, state: TrainState) -> None:
        interval = self.config.gradient_log_interval
        if interval and (state.step + 1) % interval == 0:
            self._gradients = flatten("grad", gradient_stats(state.model.named_parameters()))

    def on_step(self, state: TrainState) -> None:
        last = state.last
        sums = torch.stack([last.loss_sum, last.auxiliary_sum])
        self._sums = sums if self._sums is None else self._sums + sums
        self._count += last.count
        self._seconds += last.seconds
        self._data_seconds += last.data_seconds
        self._steps += 1
        self._tokens += last.tokens
        self._flops += last.tokens * self.mfu.flops_per_token
        if state.step % self.config.log_every == 0 or state.step == self.max_steps:
            self._report(state)
        self._follow(state)

    def on_end(self, state: TrainState) -> None:
        if self._steps:  # interrupted between two reports
            self._report(state)

    def _report(self, state: TrainState) -> None:
        assert self._sums is not None
        loss_sum, auxiliary, data_seconds = self.distributed.sum([*self._sums.tolist(), self._data_seconds])
        loss = loss_sum / self._count
        # every rank takes part in a step for its whole length, so rank 0's clock serves for all
        mfu = self.mfu.update(self._seconds, steps=self._steps, tokens=self._tokens, flops=self._flops)
        metrics = {
            "train/loss": loss,
            "train/ppl": math.exp(min(loss, 700.0)),
            "train/lr": state.last.lr,
            "train/grad_norm": state.last.grad_norm,
            "train/step_time_ms": 1e3 * self._seconds / self._steps,
            "train/data_wait": data_seconds / self.distributed.world_size / self._seconds,
            "train/tokens": state.tokens,
            "train/train_time_hr": state.train_seconds / 3600,
            "train/nonfinite_steps": state.nonfinite_steps,
        }
        if auxiliary and math.isfinite(auxiliary):
            metrics["train/auxiliary_loss"] = auxiliary / self._count
        metrics |= {
            f"train/{k}": mfu[k] for k in ("mfu", "tokens_per_sec", "tokens_per_sec_per_gpu", "achieved_tflops")
        }
        metrics |= flatten("stability", self.stability.update(state.step, loss, state.last.grad_norm))
        metrics |= flatten("memory", memory_stats(self.distributed.device)) | self._gradients
        self.sinks.log(state.step, metrics)
        if state.last.grad_norm is None and not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss is not finite after step {state.step}, and gradients are not looked at (scaler.module is "
                f"plain_scaler): what was saved up to step {state.step - self._steps} is good. Resume from there with "
                "a lower learning rate, or with gpt_core.training.amp_grad_scaler, which skips steps that would break "
                "the weights"
            )
        self._gradients = {}
        self._reset()

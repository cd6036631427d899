"""Evaluate on the validation split every so often, on the test split at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpt_core.monitor import Sinks
from gpt_core.training.config import EvalConfig
from gpt_core.training.evaluation import Evaluation
from gpt_core.training.state import Hook, TrainState


class Evaluate(Hook):
    """Sets `state.val_loss` and `state.best_val_loss`, and reports `val/*` (and `test/*`).

    measure: `(loader, iterations=n) -> Evaluation`. val, test: loaders with `batches_per_epoch` (of one rank); test
    may be None. batch_tokens: of a batch, for `eval_tokens`. Put this hook before `Save`, which looks for an
    improvement.
    """

    def __init__(
        self,
        config: EvalConfig,
        sinks: Sinks,
        measure: Callable[..., Evaluation],
        val: Any,
        test: Any | None,
        world_size: int = 1,
        batch_tokens: int = 1,
    ):
        self.config, self.sinks, self.measure = config, sinks, measure
        self.val, self.test = val, test if config.test_at_end else None
        self.world_size, self.batch_tokens = world_size, batch_tokens

    def on_start(self, state: TrainState) -> None:
        if self.config.at_start and state.step == 0:
            self._validate(state)

    def on_step(self, state: TrainState) -> None:
        if self.config.eval_every and state.step % self.config.eval_every == 0:
            self._validate(state)

    def on_end(self, state: TrainState) -> None:
        if state.status != "completed":  # an interrupted run should end now
            return
        if state.val_step != state.step:
            self._validate(state)
        if self.test is not None:
            result = self.measure(self.test, iterations=self._whole(self.test))
            self._report(state, {"test/loss": result.loss, "test/acc": result.accuracy})

    def _validate(self, state: TrainState) -> None:
        started = time.perf_counter()
        result = self.measure(self.val, iterations=self._iterations())
        state.val_loss, state.val_step = result.loss, state.step
        # step 0 is the untrained model: a reference point, not a candidate for the best
        # (nor is a loss that is not finite: nothing is less than NaN)
        best = math.inf if state.best_val_loss is None else state.best_val_loss
        if state.step and result.loss < best:
            state.best_val_loss = result.loss
        metrics = {"val/loss": result.loss, "val/acc": result.accuracy, "val/ppl": math.exp(min(result.loss, 700.0))}
        if result.bits_per_byte is not None:
            metrics["val/bits_per_byte"] = result.bits_per_byte
        metrics |= {"val/train_time_s": state.train_seconds, "val/train_cpu_s": state.cpu_seconds}
        self._report(state, metrics | {"val/time_s": time.perf_counter() - started})

    def _iterations(self) -> int:
        if self.config.eval_tokens:
            wanted = -(-self.config.eval_tokens // self.batch_tokens)
            with suppress(ValueError):  # a stream does not know how long it is
                wanted = min(wanted, self._whole(self.val))
            return wanted
        return self.config.eval_iters or self._whole(self.val)

    def _whole(self, loader: Any) -> int:
        return loader.batches_per_epoch * self.world_size

    def _report(self, state: TrainState, metrics: dict[str, float]) -> None:
        self.sinks.log(state.step, metrics)
        self.sinks.event("eval", {"step": state.step, "lr": state.last.lr, **metrics})

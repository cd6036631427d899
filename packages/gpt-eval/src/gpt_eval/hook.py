"""Benchmarks while a model trains: CORE and ChatCORE every so many steps, shared by all ranks.

Made for gpt_core.training.run, which knows nothing of it: `run(..., benchmarks=partial(Benchmarks, speech=answering))`.
Any loop can drive it: four methods, called by all ranks at the same step.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from gpt_eval.evaluate import evaluate, prepare
from gpt_eval.model import LanguageModel
from gpt_eval.ranks import OneProcess, Ranks, TorchRanks
from gpt_eval.results import Results


class Schedule(Protocol):
    """Section `eval` of a training's configuration."""

    @property
    def core_every(self) -> int: ...
    @property
    def chatcore_every(self) -> int: ...
    @property
    def bundle(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def allow_code_execution(self) -> bool: ...


class Benchmarks:
    """Scores the model in training, reports `core/*` and `chatcore/*`, and keeps results below `run_dir`/eval.

    A score of all items of all tasks is `core/score`; any other is `core/partial`, beside its coverage `core/tasks`.
    What cannot be run (no data, no chat template, programs not allowed) is an error before the first step.

    Args:
        speech: of a tokenizer, further settings of GPTModel: its chat template, such as gpt_data.chat.answering.
        wrap: (model, tokenizer, name=..., **speech(tokenizer)) -> LanguageModel; None is GPTModel.
        sinks: has `log(step, metrics)` and `info(text)`.
        ranks: has `rank` and `world_size`; of several, torch.distributed must be initialized.
        lend: entered around all use of the model.
    """

    SUITES: Mapping[str, str] = {"core": "core", "chatcore": "foundry"}
    """Suite -> protocol."""

    def __init__(
        self,
        settings: Schedule,
        *,
        tokenizer: Any,
        sinks: Any,
        ranks: Any,
        run_dir: Path,
        speech: Callable[[Any], Mapping[str, Any]] = lambda tokenizer: {},
        wrap: Callable[..., LanguageModel] | None = None,
        lend: Callable[[], AbstractContextManager] = nullcontext,
    ):
        assert settings.bundle is not None
        self.every = {"core": settings.core_every, "chatcore": settings.chatcore_every}
        self.bundle, self.limit = settings.bundle, settings.limit
        self.tokenizer, self.sinks, self.run_dir = tokenizer, sinks, run_dir
        self.ranks: Ranks = OneProcess() if ranks.world_size == 1 else TorchRanks()
        self.lend, self.allow_code_execution = lend, settings.allow_code_execution
        self._speech = speech(tokenizer)
        self._wrap = _gpt_model if wrap is None else wrap

    def on_start(self, state: Any) -> None:
        """Refuses what would fail later."""
        for suite in self._wanted():
            with self.lend():
                self._call(prepare, suite, state, None)

    def on_gradients(self, state: Any) -> None: ...

    def on_step(self, state: Any) -> None:
        for suite in self._wanted():
            if state.step % self.every[suite] == 0:
                self._score(suite, state)

    def on_end(self, state: Any) -> None:
        """A completed run is scored at its end, too."""
        for suite in self._wanted():
            if state.status == "completed" and state.step % self.every[suite] != 0:
                self._score(suite, state)

    def _wanted(self) -> list[str]:
        return [suite for suite, every in self.every.items() if every]

    def _score(self, suite: str, state: Any) -> None:
        started = time.perf_counter()
        with self.lend():
            results = self._call(evaluate, suite, state, self.run_dir / "eval" / f"{suite}_step_{state.step:06d}")
        metrics = summary(suite, results) | {f"{suite}/time_s": time.perf_counter() - started}
        self.sinks.log(state.step, metrics)
        shown = "score" if f"{suite}/score" in metrics else "partial"
        if f"{suite}/{shown}" in metrics:
            self.sinks.info(f"step {state.step}: {suite} {shown} {metrics[f'{suite}/{shown}']:+.4f}")

    def _call(self, function: Callable[..., Any], suite: str, state: Any, output: Path | None) -> Any:
        """evaluate or prepare, with the model as it is now."""
        name = f"{self.run_dir.name} step {state.step}"
        model = self._wrap(state.model, self.tokenizer, name=name, **self._speech)
        return function(
            model,
            suite,
            self.bundle,
            protocol=self.SUITES[suite],
            limit=self.limit,
            output=output,
            resume=False,
            ranks=self.ranks,
            allow_code_execution=self.allow_code_execution,
        )


def _gpt_model(*arguments: Any, **settings: Any) -> LanguageModel:
    from gpt_eval.models import GPTModel

    return GPTModel(*arguments, **settings)


def summary(suite: str, results: Results) -> dict[str, float]:
    """Metrics of one evaluation: the suite's average under a name that says whether it is whole, and each task's."""
    found = {f"{suite}/{task.label}": task.centered for task in results.tasks if task.centered is not None}
    complete = not results.missing and not any(task.partial for task in results.tasks)
    scores = [average["score"] for average in results.averages.values() if average.get("score") is not None]
    if scores:
        found[f"{suite}/{'score' if complete else 'partial'}"] = scores[0]
    return {**found, f"{suite}/tasks": float(len(results.tasks))}

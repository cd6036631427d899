"""How often a run is evaluated, where that follows from its length, and on how much."""

from __future__ import annotations

import math

from gpt_core.config import Config
from gpt_core.config.overrides import COMMAND_LINE

AUTO = -1


def validation_interval(steps: int) -> int:
    """Steps between evaluations on held-out data: a tenth of the run, 100 to 500."""
    return min(max(steps // 10, 100), 500)


def benchmark_interval(steps: int) -> int:
    """Steps between evaluations on benchmarks: a quarter of the run, 250 or more, at most half of it, at least 1."""
    return max(1, min(max(250, steps // 4), steps // 2))


def epoch_interval(steps: int, epochs: float) -> int:
    """Steps of an epoch; of so many epochs as are a quarter of the run where there are more than four."""
    return max(1, round(math.ceil(epochs / 4) * steps / epochs))


def with_intervals(config: Config) -> Config:
    """`config` with steps in place of every -1 in its section `eval`; eval_iters of the command line go before the
    eval_tokens of a file."""
    wanted, training = config.section("eval"), config.section("training")
    steps, epochs = training.max_steps, training.epochs
    chatcore = benchmark_interval(steps) if epochs in (None, "auto") else epoch_interval(steps, epochs)
    found = {
        "eval.eval_every": (wanted.eval_every, validation_interval(steps)),
        "eval.core_every": (wanted.core_every, benchmark_interval(steps)),
        "eval.chatcore_every": (wanted.chatcore_every, chatcore),
    }
    values: dict[str, int | None] = {key: interval for key, (asked, interval) in found.items() if asked == AUTO}
    if wanted.eval_tokens and _is_typed(config, "eval.eval_iters") and not _is_typed(config, "eval.eval_tokens"):
        values["eval.eval_tokens"] = None
    return config.changed(values, f"{steps} steps") if values else config


def _is_typed(config: Config, key: str) -> bool:
    return config.origin(key) == COMMAND_LINE

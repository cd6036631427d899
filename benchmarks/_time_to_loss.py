"""One run of one side for `bench_time_to_loss.py`, in a process of its own; its figures go to a file.

python _time_to_loss.py FIGURES ours CONFIG [--key=value ...]
python _time_to_loss.py FIGURES nanogpt FOLDER DATASET TRAIN_PY_ARGUMENT ...

Figures, CPU seconds (user and system) of this process: `cpu` from the first step to the end of the last evaluation,
`steps` without evaluations, `process` from the start of Python to the end of the run.
"""

import builtins
import json
import os
import runpy
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "apps" / "pretrain" / "configs"


def main(figures: str, side: str, *arguments: str) -> None:
    run = ours(list(arguments)) if side == "ours" else nanogpt(Path(arguments[0]), Path(arguments[1]), arguments[2:])
    Path(figures).write_text(json.dumps(run), encoding="utf-8")


def ours(arguments: list[str]) -> dict[str, Any]:
    """`apps/pretrain` with a clock that looks after every step, when all other hooks have run."""
    from gpt_core.config import load_config
    from gpt_core.distributed import distributed
    from gpt_core.training.recipe import SCHEMA
    from gpt_core.training.run import run
    from gpt_core.training.state import Hook, TrainState

    class Clock(Hook):
        def on_start(self, state: TrainState) -> None:
            self.times, self.model = [time.process_time()], state.model

        def on_step(self, state: TrainState) -> None:
            self.times.append(time.process_time())

    clock = Clock()
    config = load_config(arguments, schema=SCHEMA, config_dirs=[CONFIGS])
    training, evaluation = config.section("training"), config.section("eval")
    if evaluation.eval_every != training.max_steps or evaluation.eval_iters is not None:
        raise ValueError("expected one evaluation of the whole split: eval_every = max_steps, eval_iters = null")
    with distributed(config.section("general").device, config.section("parallel").backend) as ranks:
        run(config, ranks, datetime.now(), ["apps/pretrain", *arguments], extra_hooks=[clock])
    *before_last, end = clock.times
    steps = len(before_last)
    figures = {
        "cpu": end - before_last[0],
        "steps": (before_last[-1] - before_last[0]) * steps / (steps - 1),  # the last step ends in an evaluation
        "process": time.process_time(),
    }
    dataset = config.component("data").build(context_length=training.context_length, device_batch_size=1).dataset.path
    clock.model.eval()
    val_loss = whole_split(clock.model, dataset, training.context_length)
    return {**figures, "val_loss": val_loss, "params": parameters(clock.model)}


def nanogpt(folder: Path, dataset: Path, arguments: tuple[str, ...]) -> dict[str, Any]:
    """train.py as it is, with a clock that looks whenever it prints: "step N" after an evaluation, "iter N" after an
    iteration."""
    printed: list[tuple[str, float]] = []
    write = builtins.print

    def note(*words: Any, **options: Any) -> None:
        printed.append((" ".join(map(str, words)), time.process_time()))
        write(*words, **options)

    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = ["train.py", *arguments]
    builtins.print = note
    try:
        left = runpy.run_path("train.py", run_name="__main__")
    finally:
        builtins.print = write
    process = time.process_time()

    evaluated = [i for i, (line, _) in enumerate(printed) if line.startswith("step ")]
    first, last = evaluated[0], evaluated[-1]  # the evaluation before the first step is not counted
    cpu = printed[last][1] - printed[first][1]
    evaluations = sum(printed[i][1] - printed[i - 1][1] for i in evaluated[1:])
    estimate = float(printed[last][0].rpartition(" ")[2])
    figures = {"cpu": cpu, "steps": cpu - evaluations, "process": process, "own_estimate": estimate}

    model = left["model"]

    def logits(ids: Any) -> Any:
        return model(ids, ids)[0]  # without targets it gives the last position only

    model.eval()
    val_loss = whole_split(logits, dataset, left["block_size"])
    return {**figures, "val_loss": val_loss, "params": parameters(model)}


def whole_split(logits: Callable[[Any], Any], dataset: Path, context_length: int) -> float:
    """Mean cross-entropy over the windows that tile the validation split, every window once."""
    import torch
    import torch.nn.functional as F

    import gpt_data

    def windows(rows: int) -> Any:
        return gpt_data.random_windows(dataset, context_length, rows).val

    count = windows(1).batches_per_epoch
    batches, seen, total = windows(64), 0, 0.0
    with torch.no_grad():
        while seen < count:
            batch = next(batches)
            rows = min(len(batch.inputs), count - seen)  # the loader starts anew within the last batch
            outputs = logits(batch.inputs[:rows]).flatten(0, 1)
            total += rows * float(F.cross_entropy(outputs, batch.targets[:rows].flatten()))
            seen += rows
    return total / count


def parameters(model: Any) -> int:
    """All of them, a position table included."""
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main(*sys.argv[1:])

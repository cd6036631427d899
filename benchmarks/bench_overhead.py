"""What gpt_core costs beside torch: import time, and the training loop's own work at 10 M parameters.

    uv run benchmarks/bench_overhead.py

`import_ratio`: CPU time of a fresh process that imports all that a training run needs (gpt_core.training.run), over one
that imports torch. `overhead_share`: the share of a step's CPU time that is not forward, backward or optimizer:
batches, clipping, logging, bookkeeping. Clipping is counted as overhead, although every loop does it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from _bench import finish, median, table
from torch import nn

import gpt_data
from gpt_core import monitor
from gpt_core.distributed import Distributed
from gpt_core.models import gpt
from gpt_core.training import ModelWithLoss, TrainState, amp_grad_scaler, autoregressive, plan_batches, train
from gpt_core.training.config import LoggingConfig, TrainingConfig
from gpt_core.training.hooks import Log
from gpt_optim import adamw, schedules

IMPORTS = {"torch": "import torch", "gpt_core": "import gpt_core", "a training run": "import gpt_core.training.run"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes per import")
    parser.add_argument("--steps", type=int, default=20, help="timed training steps")
    args = parser.parse_args()
    imports = import_seconds(args.repeats)
    rows = [(name, seconds, seconds / imports["torch"]) for name, seconds in imports.items()]
    print(table(("import", "median CPU s", "ratio"), rows), end="\n\n")
    torch.set_num_threads(1)
    total, parts = loop_seconds(args.steps)
    own = total - sum(parts.values())
    rows = [
        (name, 1e3 * seconds / args.steps, seconds / total) for name, seconds in (*parts.items(), ("the loop", own))
    ]
    print(table(("part of a step", "CPU ms", "share"), rows))
    ratio = max(imports["a training run"], imports["gpt_core"]) / imports["torch"]
    finish(import_ratio=ratio, overhead_share=own / total)


def import_seconds(repeats: int) -> dict[str, float]:
    """Median CPU seconds, user and system, of a process per import; in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, code in IMPORTS.items():
            before = children_seconds()
            subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
            seconds[name].append(children_seconds() - before)
    return {name: median(times) for name, times in seconds.items()}


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def loop_seconds(steps: int) -> tuple[float, dict[str, float]]:
    """CPU seconds of `steps` steps of the loop, and of forward, backward and optimizer within."""
    clock = Clock()
    model = gpt(4096, 256, n_layer=5, n_head=6, n_embd=384)
    loss = autoregressive()
    forward = Timed(ModelWithLoss(model, loss), clock)
    optimizer = adamw(model)
    optimizer.step = clock.timing("optimizer", optimizer.step)
    batch_size, config = 8, TrainingConfig(context_length=256, device_batch_size=8)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(map(chr, range(33, 127))) * 2000)
        data = gpt_data.prepare("text", [text], tokenizer="char", out=Path(folder) / "data", quiet=True)
        loader = gpt_data.random_windows(data.path, 256, batch_size).train
        scaler = amp_grad_scaler(1.0, torch.float32, "cpu")
        state = TrainState(model, optimizer, scaler, loader)
        plan = plan_batches(config, 1)
        meter = monitor.MFUMeter(model.config, tokens_per_step=plan.tokens, device_name="cpu", precision="fp32")
        sinks = monitor.open_sinks(folder, run_name="bench", max_steps=steps, style="quiet")
        hooks = [Log(LoggingConfig(), sinks, Distributed(), meter, steps)]

        def run(until: int) -> None:
            train(
                state,
                forward,
                loss=loss,
                schedule=schedules.cosine(max_steps=10_000),
                plan=plan,
                max_steps=until,
                distributed=Distributed(),
                autocast=nullcontext,
                hooks=hooks,
            )

        run(3)  # caches, first allocations
        clock.seconds.clear()
        state.status = "running"
        started = time.process_time()
        run(3 + steps)
        return time.process_time() - started, dict(clock.seconds)


class Clock:
    """Adds up CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
            return result

        return timed


class Timed(nn.Module):
    """`inner` with its forward and the backward of its objective timed."""

    def __init__(self, inner: nn.Module, clock: Clock):
        super().__init__()
        self.inner, self.clock = inner, clock
        self.call = clock.timing("forward", inner)

    def forward(self, *inputs: torch.Tensor | None) -> Any:
        sums = self.call(*inputs)
        return sums._replace(objective=TimedObjective(sums.objective, self.clock))


class TimedObjective:
    """A loss whose `backward` is timed; the scalar arithmetic between is the loop's."""

    def __init__(self, value: torch.Tensor, clock: Clock):
        self.value, self.clock = value, clock

    def __mul__(self, scale: float) -> "TimedObjective":
        return TimedObjective(self.value * scale, self.clock)

    def backward(self) -> None:
        self.clock.timing("backward", self.value.backward)()


if __name__ == "__main__":
    main()

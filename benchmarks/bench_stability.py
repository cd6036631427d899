"""What each remedy against divergence is worth: the same small run with and without it, where the one without fails.

    uv run benchmarks/bench_stability.py --plot docs/images/stability.png     # three CPU minutes; goes on if stopped
    uv run benchmarks/bench_stability.py --seeds 1 --only clipping            # to look

A case is a setting in which training goes wrong, and its arms are that setting and the same with one remedy: equal
seed, weights, batches and rates. The model is a GPT of one or two layers on the bytes of Python's own library, one
thread, trained by `gpt_core.training.train`. Validation, ten times a run, is always on the same batches.

Two failures are planted, since none of runs so short has them: an infinite gradient (`bad_batch`), and a drift of all
logits together (`drift`), which a long run comes to by small steps.

A run has diverged if it was stopped, or its last validation loss is not finite, or above that of guessing (ln 260), or
more than RISE = 0.3 nats above the lowest of the run. Finished runs are kept in --folder, and are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _bench import finish, table
from torch import nn

import gpt_data
from gpt_core.distributed import Distributed
from gpt_core.models import gpt
from gpt_core.training import (
    BatchPlan,
    Hook,
    ModelWithLoss,
    TrainingDiverged,
    TrainState,
    autoregressive,
    evaluate,
    train,
)
from gpt_core.training.losses import Autoregressive
from gpt_core.training.scalers import AmpGradScaler
from gpt_optim import adamw, muon, schedules

RISE, CHECKS, BATCH = 0.3, 10, 8
MODEL = {"preset": "llama", "n_layer": 2, "n_head": 2, "n_embd": 64}
VOCABULARY = 260


class OneBadBatch(Autoregressive):
    """Its gradient is infinite at one step, as after an overflow; the loss that is reported is not."""

    def __init__(self, at: int):
        super().__init__()
        self.at, self.called = at, 0

    def __call__(self, logits_BTV, targets_BT, accuracy=False):
        sums = super().__call__(logits_BTV, targets_BT, accuracy)
        self.called += not accuracy
        return sums._replace(objective=sums.objective * math.inf) if self.called == self.at and not accuracy else sums


@torch.no_grad()
def plant_drift(model: nn.Module, size: float) -> None:
    """Add one vector of ±size to every row of the head: all logits of a position move by the same amount, some `size`
    times √channels, which a softmax in exact arithmetic does not see."""
    model.head.weight += size * torch.randn(model.head.weight.shape[1]).sign()


class Careless(AmpGradScaler):
    """Takes every step, whatever the gradient: a loop without a policy."""

    def step(self, optimizer, finite):
        super().step(optimizer, finite=True)


@dataclass(frozen=True)
class Arm:
    """What differs from the other arms of its case."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    z_loss: float = 0.0
    clip: float = 1.0
    scaler: type[AmpGradScaler] = AmpGradScaler


@dataclass(frozen=True)
class Case:
    setting: str
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    arms: tuple[Arm, ...]
    """The first is without a remedy."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """What differs from MODEL in all arms."""
    steps: int = 120
    context: int = 32
    warmup: int = 0
    sweep: tuple[float, float] | None = None
    """Rates from, to: exponentially; else the rate is constant."""
    bad_batch: int | None = None
    drift: float = 0.0
    """See `plant_drift`."""
    autocast: Callable[[], AbstractContextManager] = nullcontext


def sgd(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), rate, momentum=0.9)


def hot_head(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return muon(model, 0.02, 3e-3, head_learning_rate=rate)


SWEEP = (1e-3, 0.2)
HEAD_RATE = 0.6
CASES = {
    "attention": Case(
        f"AdamW, rate swept from {SWEEP[0]:g} to {SWEEP[1]:g}",
        partial(adamw, learning_rate=math.sqrt(SWEEP[0] * SWEEP[1])),
        (Arm("without"), Arm("QK-norm", model={"qk_norm": True})),
        steps=300,
        context=64,
        sweep=SWEEP,
    ),
    "drift": Case(
        "AdamW, rate 0.03, bfloat16, drifted logits",
        partial(adamw, learning_rate=0.03, weight_decay=0.0),
        (Arm("without"), Arm("z-loss 0.0001", z_loss=1e-4)),
        model={"n_layer": 1, "n_embd": 32, "qk_norm": True},
        steps=400,
        warmup=20,
        drift=500.0,
        autocast=partial(torch.autocast, "cpu", dtype=torch.bfloat16),
    ),
    "logits": Case(
        f"Muon, AdamW's rate of the head {HEAD_RATE:g}",
        partial(hot_head, rate=HEAD_RATE),
        (Arm("without"), Arm("softcap 15", model={"logit_softcap": 15.0})),
    ),
    "clipping": Case(
        "SGD with momentum 0.9, rate 1",
        partial(sgd, rate=1.0),
        (Arm("without", clip=0.0), Arm("clipping at 1")),
    ),
    "overflow": Case(
        "AdamW, rate 0.003, an infinite gradient at step 60",
        partial(adamw, learning_rate=3e-3),
        (Arm("without", scaler=Careless), Arm("skipping")),
        bad_batch=60,
    ),
}


class Watch(Hook):
    """Losses of all steps, and validation losses."""

    def __init__(self, validate: Callable[[], float], every: int):
        self.validate, self.every = validate, every
        self.train: list[float] = []
        self.val: list[float] = []

    def on_step(self, state):
        self.train.append(float(state.last.loss_sum) / state.last.count)
        if state.step % self.every == 0:
            self.val.append(self.validate())


def run_once(case: Case, arm: Arm, seed: int, dataset: Path) -> dict[str, Any]:
    """Train; the losses, how many steps were skipped, why it stopped, and CPU seconds."""
    started = time.process_time()
    torch.manual_seed(seed)
    data = gpt_data.random_windows(dataset, case.context, BATCH, seed=seed)
    model = gpt(VOCABULARY, case.context, **{**MODEL, **case.model, **arm.model})
    if case.drift:
        plant_drift(model, case.drift)
    loss = OneBadBatch(case.bad_batch) if case.bad_batch else autoregressive(arm.z_loss)
    forward = ModelWithLoss(model, loss)
    start = data.val.state_dict()

    def validate() -> float:
        data.val.load_state_dict(start)
        forward.eval()
        result = evaluate(forward, data.val, loss=loss, iterations=8, distributed=Distributed(), autocast=case.autocast)
        forward.train()
        return result.loss

    watch, stopped = Watch(validate, case.steps // CHECKS), None
    schedule = schedules.constant(case.steps, warmup_iters=case.warmup, warmup_offset=1)
    if case.sweep:
        schedule = schedules.lr_range_test(case.steps, math.log(case.sweep[1] / case.sweep[0]))
    state = TrainState(model, case.optimizer(model), arm.scaler(arm.clip, False, "cpu"), data.train)
    try:
        train(
            state,
            forward,
            loss=loss,
            schedule=schedule,
            plan=BatchPlan(BATCH, 1, 1, case.context),
            max_steps=case.steps,
            distributed=Distributed(),
            autocast=case.autocast,
            hooks=[watch],
        )
    except TrainingDiverged as error:
        stopped = str(error)
    if state.status == "interrupted":  # a signal, at which the loop ends in good order: not a run to keep
        raise SystemExit("interrupted; the same command goes on with this run")
    val = [x if math.isfinite(x) else None for x in watch.val]
    return {
        "val": val,
        "train": [x if math.isfinite(x) else None for x in watch.train],
        "skipped": state.nonfinite_steps,
        "stopped": stopped,
        "cpu_seconds": time.process_time() - started,
    }


def diverged(run: Mapping[str, Any]) -> bool:
    """See the top of this file."""
    val = run["val"]
    if run["stopped"] or not val or val[-1] is None:
        return True
    return val[-1] > min(math.log(VOCABULARY), RISE + min(x for x in val if x is not None))


def run_all(names: list[str], seeds: int, folder: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Every run by (case, arm, seed); those that `folder` has are read."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset, path = folder / "data", folder / "runs.jsonl"
    if not dataset.is_dir():
        gpt_data.prepare("stdlib", tokenizer="byte", out=dataset, quiet=True)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    done = {tuple(row["key"]): row for row in map(json.loads, (line for line in lines if line.endswith("\n")))}
    path.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")
    for seed in range(seeds):
        for name in names:
            for arm in CASES[name].arms:
                key = (name, arm.name, seed)
                if key in done:
                    continue
                done[key] = {"key": key, **run_once(CASES[name], arm, seed, dataset)}
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[key]) + "\n")
                print(key, [x and round(x, 2) for x in done[key]["val"]], "diverged" * diverged(done[key]), flush=True)
    return done


def shown(values: list[float | None]) -> str:
    """Last validation losses of all seeds."""
    return ", ".join("-" if x is None else f"{x:.2f}" for x in values)


def report(names: list[str], seeds: int, runs: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> None:
    rows, figures = [], {}
    for name in names:
        for arm in CASES[name].arms:
            mine = [runs[name, arm.name, seed] for seed in range(seeds)]
            count = sum(map(diverged, mine))
            lowest = [min((x for x in run["val"] if x is not None), default=None) for run in mine]
            last = [run["val"][-1] if run["val"] and not run["stopped"] else None for run in mine]
            rows.append((CASES[name].setting, arm.name, f"{count} of {seeds}", shown(lowest), shown(last)))
            figures[f"{name}: {arm.name}"] = count
    print(table(("setting", "remedy", "diverged", "lowest val loss, by seed", "last"), rows))
    finish(seeds=seeds, diverged=figures, cpu_seconds=sum(run["cpu_seconds"] for run in runs.values()))


def plot(path: Path, names: list[str], seeds: int, runs: Mapping[tuple[str, str, int], Mapping[str, Any]]) -> None:
    """Validation loss of every run; a cross where a run was stopped or stopped being finite."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(names), figsize=(3.4 * len(names), 3.2), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        case, colors = CASES[name], ("tab:red", "tab:blue", "tab:green")
        for arm, color in zip(case.arms, colors, strict=False):
            for seed in range(seeds):
                val = [math.log(VOCABULARY), *runs[name, arm.name, seed]["val"]]
                good = val[: val.index(None)] if None in val else val
                steps = [i * case.steps // CHECKS for i in range(len(good))]
                axis.plot(steps, good, color=color, lw=1.3, label=arm.name if not seed else None)
                if len(good) <= CHECKS:
                    axis.plot(steps[-1:], [min(good[-1], 9.0)], "x", color=color, ms=9, mew=2, clip_on=False)
        axis.set(title=case.setting, xlabel="step", ylim=(2, 9))
        axis.title.set_fontsize(8)
        axis.legend(fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("validation loss, nats per byte")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=CASES, action="append", help="cases; default: all")
    parser.add_argument("--folder", type=Path, default=Path("out/bench-stability"), help="of data and finished runs")
    parser.add_argument("--plot", type=Path, help="where to draw the picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.only or list(CASES)
    runs = run_all(names, options.seeds, options.folder)
    report(names, options.seeds, runs)
    if options.plot:
        plot(options.plot, names, options.seeds, runs)


if __name__ == "__main__":
    main()

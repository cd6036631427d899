"""One run of one side for `bench_speedrun_desk.py`, in a process of its own; its figures go to a file.

python _speedrun_desk.py FIGURES nanogpt SEED FOLDER DATASET CONTEXT TRAIN_PY_ARGUMENT ...
python _speedrun_desk.py FIGURES ours SEED DATASET CONTEXT APPS_SPEEDRUN_ARGUMENT ...
python _speedrun_desk.py FIGURES nanochat SEED FOLDER DATASET CONTEXT FACTOR STEPS ROWS LAYERS WIDTH HEADS

Figures: `steps`, CPU seconds (user and system) of this process from the first training step to the last without
evaluations; `val_loss` and `bpb`, nats per token and bits per byte over the windows of CONTEXT tokens that tile the
validation split; `params`.
"""

import json
import math
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

from _time_to_loss import nanogpt as train_py
from _time_to_loss import parameters, whole_split

CONFIGS = Path(__file__).parents[1] / "apps" / "speedrun" / "configs"


def main(figures: str, side: str, seed: str, *arguments: str) -> None:
    sides = {"nanogpt": nanogpt, "ours": ours, "nanochat": nanochat}
    run = sides[side](int(seed), *arguments)
    Path(figures).write_text(json.dumps(run), encoding="utf-8")


def judged(logits: Any, model: Any, dataset: Path, context: int) -> dict[str, Any]:
    """The figures of a trained model; `logits` (B, T) -> (B, T, V)."""
    model.eval()
    loss = whole_split(logits, dataset, context)
    return {"val_loss": loss, "bpb": bits_per_byte(loss, dataset), "params": parameters(model)}


def bits_per_byte(loss: float, dataset: Path) -> float:
    """Of a mean loss in nats per token of the validation split."""
    from gpt_data import random_windows

    bytes_per_token = random_windows(dataset, 1, 1, prefetch=0).dataset.bytes_per_token("val")
    assert bytes_per_token, "text has bytes"
    return loss / math.log(2) / bytes_per_token


def nanogpt(seed: int, folder: str, dataset: str, context: str, *arguments: str) -> dict[str, Any]:
    """train.py as it is; only its fixed seed is moved by `seed`."""
    import torch

    manual_seed = torch.manual_seed
    with mock.patch.object(torch, "manual_seed", lambda value: manual_seed(value + seed)):
        run = train_py(Path(folder), Path(dataset), arguments)
    bpb = bits_per_byte(run["val_loss"], Path(dataset))
    return {"steps": run["steps"], "val_loss": run["val_loss"], "bpb": bpb, "params": run["params"]}


def ours(seed: int, dataset: str, context: str, *arguments: str) -> dict[str, Any]:
    """`apps/speedrun` with a clock around its steps, which stops while other hooks run."""
    from gpt_core.config import load_config
    from gpt_core.distributed import distributed
    from gpt_core.training.recipe import SCHEMA
    from gpt_core.training.run import run
    from gpt_core.training.state import Hook, TrainState

    class Clock(Hook):
        """Comes after all other hooks; the optimizer's zero_grad, the last act of a step, comes before them."""

        seconds = begin = end = 0.0

        def on_start(self, state: TrainState) -> None:
            self.model, zero_grad = state.model, state.optimizer.zero_grad

            def noted(*args: Any, **kwargs: Any) -> None:
                zero_grad(*args, **kwargs)
                self.end = time.process_time()

            state.optimizer.zero_grad = noted
            self.begin = time.process_time()

        def on_step(self, state: TrainState) -> None:
            self.seconds += self.end - self.begin
            self.begin = time.process_time()

    clock = Clock()
    flags = [*arguments, f"--general.seed={seed}", f"--model.module_kwargs.init_seed={seed}"]
    config = load_config(flags, schema=SCHEMA, config_dirs=[CONFIGS])
    with distributed(config.section("general").device, config.section("parallel").backend) as ranks:
        run(config, ranks, datetime.now(), ["apps/speedrun", *flags], extra_hooks=[clock])
    return {"steps": clock.seconds, **judged(clock.model, clock.model, Path(dataset), int(context))}


def nanochat(seed: int, folder: str, dataset: str, context: str, factor: str, *sizes: str) -> dict[str, Any]:
    """nanochat's model and optimizer, imported, with the rates and schedules of its base_train.py, in float32.

    Rates are its optimizer's defaults times `factor`. Its own factor is √(batch / 2¹⁹ tokens), 0.04 here, and its decay
    of weights goes by that, too; it is meant for batches from 2¹⁹ tokens on and left out.
    """
    import os

    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # as on the other sides: nothing is compiled
    sys.path.insert(0, folder)
    import torch
    from nanochat.gpt import GPT, GPTConfig  # ty: ignore[import-not-found]  # the peer's

    from gpt_data import random_windows

    steps, rows, layers, width, heads = map(int, sizes)
    torch.manual_seed(seed)
    splits = random_windows(dataset, int(context), rows, seed=seed)
    vocabulary = splits.dataset.vocab_size
    model = GPT(GPTConfig(int(context), vocabulary, layers, heads, heads, width))
    model.init_weights()
    optimizer = model.setup_optimizer()
    for group in optimizer.param_groups:
        group["initial_lr"] *= float(factor)
    warm_down, warm_up = round(0.65 * steps), min(40, steps // 10)
    seconds = 0.0
    for step in range(steps):
        begin = time.process_time()
        done = max(0.0, (step - (steps - warm_down)) / warm_down)  # of the warm-down
        schedule = min((step + 1) / warm_up, 1.0) * (1 - done * 0.95)
        momentum = 0.97 - 0.07 * done if done else 0.85 + 0.12 * min(1.0, step / 400)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * schedule
            if group["kind"] == "muon":
                group["momentum"] = momentum
        batch = next(splits.train)
        loss = model(batch.inputs, batch.targets)
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        seconds += time.process_time() - begin
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    return {"steps": seconds, **judged(model, model, Path(dataset), int(context))}


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Training speed and quality against nanoGPT, at its own CPU recipe and at 10 M parameters.

    uv run benchmarks/bench_train.py --nanogpt PATH/TO/nanoGPT [--text input.txt]

Speed: one thread, CPU time; the two sides take turns, step by step, on the same random tokens, each with its own way of
drawing batches, its own model, optimizer and clipping. Ours is the real loop, with its logging. Ratios are our tokens
per CPU-second over nanoGPT's.

Quality: `apps/pretrain shakespeare-char` for 2000 steps, which is nanoGPT's recipe for a laptop; it needs tiny
Shakespeare, from --text, from a prepared `shakespeare_char` dataset, or from the checkout's data folder.
"""

import argparse
import contextlib
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bench import alternate, finish, load_peer, median, table

import gpt_data
from gpt_core.distributed import Distributed
from gpt_core.models import gpt
from gpt_core.training import ModelWithLoss, TrainState, amp_grad_scaler, autoregressive, plan_batches, train
from gpt_core.training.compilation import compile_module
from gpt_core.training.config import TrainingConfig
from gpt_core.training.precision import autocast, resolve_dtype
from gpt_optim import adamw, schedules

CHAR = {"n_layer": 4, "n_head": 4, "n_embd": 128, "context": 64, "batch": 12, "vocab_size": 65}
TEN_MILLION = {"n_layer": 6, "n_head": 6, "n_embd": 384, "context": 256, "batch": 8, "vocab_size": 65}
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="folder of a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, help="tiny Shakespeare, for the quality run")
    parser.add_argument("--rounds", type=int, default=40, help="timed steps of each side at the small size")
    parser.add_argument("--only", choices=["speed", "quality"], help="one half of it")
    args = parser.parse_args()
    figures: dict[str, Any] = {"val_loss": None}
    if args.only != "speed":
        figures["val_loss"] = quality(args.nanogpt, args.text)
    if args.only != "quality":
        torch.set_num_threads(1)
        figures |= speed(args.nanogpt, args.rounds)
    finish(**figures)


def speed(nanogpt: Path, rounds: int) -> dict[str, float]:
    cases = {  # figure -> (shape, compiled, our dtype, rounds)
        "eager_ratio": (CHAR, False, "float32", rounds),
        "compiled_ratio": (CHAR, True, "float32", rounds),
        "eager_ratio_10m": (TEN_MILLION, False, "float32", max(5, rounds // 5)),
        "default_ratio_10m": (TEN_MILLION, False, "fastest", max(5, rounds // 5)),
    }
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        dataset = random_characters(Path(folder), CHAR["vocab_size"])
        for figure, (shape, compiled, dtype, steps) in cases.items():
            sides = {
                "nanoGPT": nanogpt_step(nanogpt, shape, dataset, compiled),
                "ours": our_step(shape, dataset, compiled, dtype),
            }
            seconds = {name: median(times) for name, times in alternate(sides, steps, warmup=5).items()}
            per_step = shape["batch"] * shape["context"]
            figures[figure] = seconds["nanoGPT"] / seconds["ours"]
            rows.append((figure, *(per_step / seconds[name] for name in sides), figures[figure]))
            print(f"{figure}: {figures[figure]:.3f}", file=sys.stderr, flush=True)
    print(table(("case", "nanoGPT tokens / CPU s", "ours tokens / CPU s", "ratio"), rows))
    return figures


def random_characters(folder: Path, vocab_size: int) -> Path:
    """A prepared dataset of a million characters; its shard is nanoGPT's train.bin as well."""
    ids = np.random.default_rng(0).integers(vocab_size, size=1_000_000)
    (folder / "characters.txt").write_text("".join(map(chr, 48 + ids)), encoding="utf-8")
    return gpt_data.prepare("text", [folder / "characters.txt"], tokenizer="char", out=folder / "data", quiet=True).path


def nanogpt_step(folder: Path, shape: dict[str, int], dataset: Path, compiled: bool) -> Callable[[], None]:
    """One iteration as its train.py makes them: AdamW from configure_optimizers, clipping at 1, batches from a
    memmap."""
    peer = load_peer(folder / "model.py", "nanogpt_model")
    torch.manual_seed(0)
    sizes = {key: shape[key] for key in ("n_layer", "n_head", "n_embd", "vocab_size")}
    with contextlib.redirect_stdout(io.StringIO()):
        model = peer.GPT(peer.GPTConfig(block_size=shape["context"], bias=False, dropout=0.0, **sizes))
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    forward = torch.compile(model) if compiled else model
    T = shape["context"]
    tokens = next(dataset.glob("train_*.bin"))

    def step() -> None:
        data = np.memmap(tokens, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - T, (shape["batch"],)).tolist()
        inputs = torch.stack([torch.from_numpy(data[s : s + T].astype(np.int64)) for s in starts])
        targets = torch.stack([torch.from_numpy(data[s + 1 : s + 1 + T].astype(np.int64)) for s in starts])
        _, loss = forward(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert math.isfinite(loss.item())

    return step


def our_step(shape: dict[str, int], dataset: Path, compiled: bool, dtype_name: str) -> Callable[[], None]:
    """One step of gpt_core's loop."""
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    sizes = {key: shape[key] for key in ("n_layer", "n_head", "n_embd")}
    model = gpt(shape["vocab_size"], shape["context"], preset="gpt2_pre", **sizes)
    loss, dtype = autoregressive(), resolve_dtype(dtype_name, cpu)
    forward = ModelWithLoss(model, loss)
    ids = torch.zeros(shape["batch"], shape["context"], dtype=torch.long)
    in_dtype = partial(autocast, dtype, cpu)
    problem = compile_module(forward, "model" if compiled else "off", example=lambda: (ids, ids), autocast=in_dtype)
    assert problem is None, problem
    config = TrainingConfig(context_length=shape["context"], device_batch_size=shape["batch"])
    data = gpt_data.random_windows(dataset, shape["context"], shape["batch"]).train
    state = TrainState(model, adamw(model, 1e-3, beta2=0.99), amp_grad_scaler(1.0, dtype, "cpu"), data)
    schedule, plan = schedules.cosine(max_steps=10_000), plan_batches(config, 1)

    def step() -> None:
        state.status = "running"
        train(
            state,
            forward,
            loss=loss,
            schedule=schedule,
            plan=plan,
            max_steps=state.step + 1,
            distributed=Distributed(),
            autocast=in_dtype,
        )
        assert math.isfinite(state.last.loss_sum.item())

    return step


def quality(nanogpt: Path, text: Path | None) -> float | None:
    """Validation loss after nanoGPT's laptop recipe in `apps/pretrain`, None without the text."""
    root = gpt_data.data_root()
    if not (root / "shakespeare_char").is_dir():
        beside = nanogpt / "data" / "shakespeare_char" / "input.txt"
        source = text or (beside if beside.is_file() else None)
        try:
            gpt_data.prepare("shakespeare_char", [source] if source else [])
        except (ValueError, OSError) as error:
            print(f"no quality run, tiny Shakespeare is not here (give --text): {error}", file=sys.stderr)
            return None
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(ROOT / "apps" / "pretrain"), "shakespeare-char", f"--out_dir={out}"]
        subprocess.run([*command, "--run_name=bench", "--threads=1"], check=True, stdout=sys.stderr, env={**os.environ})
        return json.loads((Path(out) / "bench" / "summaries.json").read_text())["val/loss"]


if __name__ == "__main__":
    main()

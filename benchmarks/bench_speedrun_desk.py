"""CPU time of the speedrun's recipe at desk size to what nanoGPT's reaches in ten CPU minutes.

    uv run benchmarks/bench_speedrun_desk.py --nanogpt DIR [--nanochat DIR] [--out DIR] [--seeds 3] [--runs N]

All sides train on the standard library's sources (`stdlib`, 2,048 words of its own), on windows of 256 tokens, with the
same number of parameters, to which tables of embeddings count as well as matrices. nanoGPT's train.py runs as it is,
with 1,024 tokens per step and as many steps as fit the budget, with the best of three learning rates, each tried with a
fifth of the budget, and its own schedule: warm-up, then a cosine to a tenth. nanochat's side is its model and its
optimizer with the schedules of its base_train.py, all its rates multiplied with the best of three factors for one seed.
Ours is `apps/speedrun desk`. The target is nanoGPT's mean bits per byte over the seeds.

    vs_nanogpt    CPU seconds of nanoGPT's steps over ours, both medians over the seeds, or null while our runs of
                  --steps have not reached the target: then --steps is to be raised (they may be shorter otherwise)
    vs_nanochat   the same for nanochat, whose --nanochat-steps are to be chosen likewise: as few as reach the target

A run is a process of its own with one thread, hundreds of seconds long. Its figures stay in --out: called again, this
goes on with what is missing; --runs N stops after N. Sides take turns: a seed of each, then the next seed. CPU seconds
are those of the steps; the evaluation, of the whole validation split after the last step, is left out.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _bench import finish, median, table

ROOT = Path(__file__).parents[1]
CONTEXT = 256
LAYERS, HEADS = 6, 4
RATES = ("5e-4", "1e-3", "2e-3")
"""Learning rates that nanoGPT is tried with: that of its config for small models, half and twice that."""
FACTORS = ("0.3", "1", "2")
"""What nanochat is tried with, beside its optimizer's defaults: its rule η ∝ √batch would give 0.04."""
ROWS = 4
"""Windows per step of nanoGPT and nanochat: 1,024 tokens, near the 768 of nanoGPT's recipe for a CPU."""

Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="folder of a checkout of karpathy/nanoGPT")
    parser.add_argument("--nanochat", type=Path, help="folder of a checkout of karpathy/nanochat")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench_speedrun_desk", help="where figures are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=600, help="CPU seconds of nanoGPT's steps")
    parser.add_argument("--steps", type=int, default=175, help="steps of our runs")
    parser.add_argument("--nanochat-steps", type=int, default=150, help="steps of nanochat's runs")
    parser.add_argument("--runs", type=int, default=10**6, help="do so many runs and stop")
    parser.add_argument("flags", nargs="*", help="flags of apps/speedrun for our side, after --")
    bench = Bench(parser.parse_args())
    for run in bench.runs():
        bench.left -= run
        if bench.left < 0:
            print("stopped before all is measured: call it again", file=sys.stderr)
            break
    bench.report()


class Bench:
    """The runs in their order; a run that has figures in `out` is not done again."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.left = args, args.runs
        args.out.mkdir(parents=True, exist_ok=True)
        self.dataset = prepare_data(args.out)
        self.peer = peer_folder(args.nanogpt, self.dataset, args.out / "nanogpt")
        self.parameters = our_parameters(args.flags)
        self.width = nanogpt_width(self.parameters)
        self.found: dict[str, list[Run]] = {"nanoGPT": [], "ours": [], "nanochat": []}

    def runs(self) -> Iterator[bool]:
        """Do what is missing; yields before each run whether one is about to be made."""
        yield from self._run("calibration", self._nanogpt(0, RATES[1], 20))
        seconds = self.figures("calibration")["steps"] / 20
        trial = max(20, int(self.args.budget / 5 / seconds))
        for rate in RATES:
            yield from self._run(f"nanogpt-try-{rate}", self._nanogpt(0, rate, trial))
        best = min(RATES, key=lambda rate: self.figures(f"nanogpt-try-{rate}")["bpb"])
        seconds = self.figures(f"nanogpt-try-{best}")["steps"] / trial
        for factor in FACTORS if self.args.nanochat else ():
            yield from self._run(self._nanochat_name(factor, 0), self._nanochat(0, factor))
        for seed in range(self.args.seeds):
            yield from self._run(
                f"nanogpt-{seed}", self._nanogpt(seed, best, int(self.args.budget / seconds)), "nanoGPT"
            )
            yield from self._run(f"ours-{self.args.steps}-{seed}", self._ours(seed), "ours")
            if self.args.nanochat:
                factor = min(FACTORS, key=lambda tried: self.figures(self._nanochat_name(tried, 0))["bpb"])
                yield from self._run(self._nanochat_name(factor, seed), self._nanochat(seed, factor), "nanochat")

    def figures(self, name: str) -> Run:
        return json.loads((self.args.out / f"{name}.json").read_text(encoding="utf-8"))

    def _run(self, name: str, side: list[str], of: str | None = None) -> Iterator[bool]:
        file = self.args.out / f"{name}.json"
        if not file.is_file():
            yield True
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            command = [sys.executable, str(ROOT / "benchmarks" / "_speedrun_desk.py"), str(file), *side]
            with open(file.with_suffix(".log"), "w", encoding="utf-8") as log:
                subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)
            print(f"{name}: {self.figures(name)}", file=sys.stderr, flush=True)
        if of:
            self.found[of].append(self.figures(name))

    def _nanogpt(self, seed: int, rate: str, iterations: int) -> list[str]:
        flags = {
            "dataset": "stdlib",
            "device": "cpu",
            "compile": False,
            "dtype": "float32",
            "eval_iters": 1,
            "eval_interval": iterations,
            "log_interval": 1,
            "always_save_checkpoint": False,
            "gradient_accumulation_steps": 1,
            "batch_size": ROWS,
            "block_size": CONTEXT,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_embd": self.width,
            "dropout": 0.0,
            "learning_rate": rate,
            "min_lr": float(rate) / 10,
            "max_iters": iterations,
            "lr_decay_iters": iterations,
            "warmup_iters": iterations // 20,
            "beta2": 0.99,
            "out_dir": self.args.out / "nanogpt-out",
        }
        side = ["nanogpt", str(seed), str(self.peer), str(self.dataset), str(CONTEXT)]
        return side + [f"--{key}={value}" for key, value in flags.items()]

    def _ours(self, seed: int) -> list[str]:
        name = f"ours-{self.args.steps}-{seed}"
        flags = ["desk", f"--training.max_steps={self.args.steps}", "--general.compile=off", "--eval.eval_every=100000"]
        flags += ["--eval.eval_iters=1", f"--out_dir={self.args.out}", f"--run_name={name}", "--threads=1"]
        return ["ours", str(seed), str(self.dataset), str(CONTEXT), *flags, *self.args.flags]

    def _nanochat_name(self, factor: str, seed: int) -> str:
        return f"nanochat-{self.args.nanochat_steps}-{factor}-{seed}"

    def _nanochat(self, seed: int, factor: str) -> list[str]:
        layers, width = nanochat_sizes(self.parameters)
        numbers = map(str, (factor, self.args.nanochat_steps, ROWS, layers, width, HEADS))
        return ["nanochat", str(seed), str(self.args.nanochat.resolve()), str(self.dataset), str(CONTEXT), *numbers]

    def report(self) -> None:
        rows = [
            (side, i, f"{run['bpb']:.4f}", f"{run['val_loss']:.4f}", run["steps"], run["params"])
            for side, runs in self.found.items()
            for i, run in enumerate(runs)
        ]
        print(table(("side", "seed", "bits per byte", "val loss", "CPU s", "parameters"), rows))
        theirs, ours, nanochat = self.found.values()
        figures: dict[str, Any] = {"vs_nanogpt": None, "vs_nanochat": None}
        if theirs:
            target = sum(run["bpb"] for run in theirs) / len(theirs)
            figures["target_bpb"] = target
            reached = {name: bool(runs) and mean_bpb(runs) <= target for name, runs in self.found.items()}
            if reached["ours"]:
                figures["vs_nanogpt"] = seconds_of(theirs) / seconds_of(ours)
                if reached["nanochat"]:
                    figures["vs_nanochat"] = seconds_of(nanochat) / seconds_of(ours)
        for name, runs in (("nanogpt", theirs), ("ours", ours), ("nanochat", nanochat)):
            if runs:
                figures |= {
                    f"{name}_bpb": mean_bpb(runs),
                    f"{name}_seconds": seconds_of(runs),
                    f"{name}_seeds": len(runs),
                }
        finish(**figures)


def mean_bpb(runs: list[Run]) -> float:
    return sum(run["bpb"] for run in runs) / len(runs)


def seconds_of(runs: list[Run]) -> float:
    return median([run["steps"] for run in runs])


def our_parameters(flags: list[str]) -> int:
    """Parameters of the desk model, padding of banks included."""
    from gpt_core.config import load_config
    from gpt_core.training.recipe import SCHEMA

    configs = [ROOT / "apps" / "speedrun" / "configs"]
    config = load_config(["desk", *flags], schema=SCHEMA, config_dirs=configs)
    model = config.component("model").build(vocab_size=2048, context_length=CONTEXT)
    return sum(parameter.numel() for parameter in model.parameters())


def nanogpt_width(parameters: int) -> int:
    """The multiple of 8 with which nanoGPT's model has most nearly so many parameters (its head is its embedding)."""
    count = lambda width: 12 * LAYERS * width**2 + (2048 + CONTEXT) * width
    return min(range(8 * HEADS, 1024, 8), key=lambda width: abs(count(width) - parameters))


def nanochat_sizes(parameters: int) -> tuple[int, int]:
    """(layers, width) near the parameters: embedding, head, and values in every other layer, of 2,048 words each."""
    count = lambda layers, width: 12 * layers * width**2 + (2 + -(-layers // 2)) * 2048 * width
    candidates = [(layers, width) for layers in (4, 5, 6) for width in range(64, 512, 16)]
    return min(candidates, key=lambda sizes: abs(count(*sizes) - parameters))


def prepare_data(out: Path) -> Path:
    """The folder of `stdlib`, prepared below `out` if it is not in $DATA_ROOT."""
    import gpt_data

    folder = gpt_data.data_root() / "stdlib"
    if not folder.is_dir():
        folder = out / "data" / "stdlib"
        if not folder.is_dir():
            gpt_data.prepare("stdlib", root=out / "data")
    os.environ["DATA_ROOT"] = str(folder.parent.resolve())
    return folder.resolve()


def peer_folder(nanogpt: Path, dataset: Path, folder: Path) -> Path:
    """What train.py finds in its working directory: links to the checkout's files, and our tokens as its data."""
    if not (nanogpt / "train.py").is_file():
        raise SystemExit(f"{nanogpt} holds no train.py; give the folder of a checkout of karpathy/nanoGPT")
    data = folder / "data" / "stdlib"
    data.mkdir(parents=True, exist_ok=True)
    for name in ("train.py", "model.py", "configurator.py", "config"):
        if not (folder / name).exists():
            (folder / name).symlink_to((nanogpt / name).resolve())
    for split in ("train", "val"):
        shards = sorted(dataset.glob(f"{split}_*.bin"))
        (data / f"{split}.bin").write_bytes(b"".join(shard.read_bytes() for shard in shards))
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 2048}))
    return folder.resolve()


if __name__ == "__main__":
    main()

"""CPU time to nanoGPT's validation loss: its CPU recipe beside `apps/pretrain shakespeare-fast`.

    uv run benchmarks/bench_time_to_loss.py --nanogpt PATH/TO/nanoGPT [--text input.txt] [--seeds 5]

nanoGPT's train.py runs as it is, with the flags of its laptop recipe; ours is a whole `apps/pretrain` run. Each run is
a process of its own with one thread; they take turns. CPU time is user plus system time of the process:

    cpu_ratio           our median over nanoGPT's, from the first step to the end of the last evaluation: the steps,
                        the evaluations and checkpoints that each recipe makes on its way (nanoGPT: 8 times 40 batches,
                        ours: the whole validation split once). Below 1 is faster.
    cpu_ratio_steps     the same of the steps alone
    cpu_ratio_process   the same of the whole processes: imports and the building of the model on both sides, a last
                        checkpoint, a sample and pictures on ours

`val_loss` (one figure per seed) and `nanogpt_val_loss` are means over the whole validation split, the same windows on
both sides; `nanogpt_own_estimate` is what nanoGPT prints, from 20 random batches. It needs tiny Shakespeare, from
--text, from a prepared `shakespeare_char` dataset, or from the checkout's data folder.
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _bench import finish, median, table

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
RECIPE = [
    "config/train_shakespeare_char.py",
    "--device=cpu",
    "--compile=False",
    "--eval_iters=20",
    "--log_interval=1",
    "--block_size=64",
    "--batch_size=12",
    "--n_layer=4",
    "--n_head=4",
    "--n_embd=128",
    "--max_iters=2000",
    "--lr_decay_iters=2000",
    "--dropout=0.0",
]
"""The flags that nanoGPT's README gives for a laptop."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="folder of a checkout of karpathy/nanoGPT")
    parser.add_argument("--text", type=Path, help="tiny Shakespeare")
    parser.add_argument("--config", default="shakespeare-fast", help="configuration of apps/pretrain for our side")
    parser.add_argument("--seeds", type=int, default=5, help="our runs, with the seeds 0, 1, ...")
    parser.add_argument("--peer-runs", type=int, default=2, help="nanoGPT's runs (its seed is fixed), minutes each")
    args = parser.parse_args()
    if not (args.nanogpt / "train.py").is_file():
        raise SystemExit(f"{args.nanogpt} holds no train.py; give the folder of a checkout of karpathy/nanoGPT")
    with tempfile.TemporaryDirectory() as folder:
        runs = take_turns(args, prepare_data(args.nanogpt, args.text), Path(folder))
    report(runs["nanoGPT"], runs["ours"])


def take_turns(args: argparse.Namespace, dataset: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Every run's figures. nanoGPT's runs are spread evenly among ours."""
    copy = peer_folder(args.nanogpt, dataset, folder / "nanogpt")
    runs: dict[str, list[dict[str, Any]]] = {"nanoGPT": [], "ours": []}
    for seed in range(args.seeds):
        while len(runs["nanoGPT"]) * args.seeds <= seed * args.peer_runs and len(runs["nanoGPT"]) < args.peer_runs:
            side = ["nanogpt", str(copy), str(dataset), *RECIPE, f"--out_dir={folder / 'out'}"]
            runs["nanoGPT"].append(run_side(side, folder))
        flags = [f"--out_dir={folder}", f"--run_name=seed-{seed}", f"--general.seed={seed}", "--threads=1"]
        runs["ours"].append(run_side(["ours", args.config, *flags], folder))
    return runs


def run_side(side: list[str], folder: Path) -> dict[str, Any]:
    """Run `_time_to_loss.py SIDE ...` to its end; its figures."""
    figures = folder / "figures.json"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "_time_to_loss.py"), str(figures), *side]
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)
    run = json.loads(figures.read_text(encoding="utf-8"))
    print(f"{side[0]}: {run}", file=sys.stderr, flush=True)
    return run


def prepare_data(nanogpt: Path, text: Path | None) -> Path:
    """The folder of the dataset `shakespeare_char`, prepared if need be."""
    import gpt_data

    folder = gpt_data.data_root() / "shakespeare_char"
    if not folder.is_dir():
        beside = nanogpt / "data" / "shakespeare_char" / "input.txt"
        source = text or (beside if beside.is_file() else None)
        try:
            gpt_data.prepare("shakespeare_char", [source] if source else [])
        except (ValueError, OSError) as error:
            raise SystemExit(f"tiny Shakespeare is not here, give --text: {error}") from error
    return folder.resolve()


def peer_folder(nanogpt: Path, dataset: Path, folder: Path) -> Path:
    """What train.py finds in its working directory: links to the checkout's files, and our characters as its data."""
    data = folder / "data" / "shakespeare_char"
    data.mkdir(parents=True)
    for name in ("train.py", "model.py", "configurator.py", "config"):
        (folder / name).symlink_to((nanogpt / name).resolve())
    for split in ("train", "val"):
        shards = sorted(dataset.glob(f"{split}_*.bin"))
        (data / f"{split}.bin").write_bytes(b"".join(shard.read_bytes() for shard in shards))
    vocab_size = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))["vocab_size"]
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
    return folder


def report(theirs: list[dict[str, Any]], ours: list[dict[str, Any]]) -> None:
    sides = [("nanoGPT", run) for run in theirs] + [(f"ours, seed {i}", run) for i, run in enumerate(ours)]
    keys = ("val_loss", "cpu", "steps", "process", "params")
    print(
        table(
            ("run", "val loss", "CPU s", "of it steps", "process", "parameters"),
            [(name, f"{run['val_loss']:.4f}", *(run[key] for key in keys[1:])) for name, run in sides],
        )
    )
    ratios = {key: median([r[key] for r in ours]) / median([r[key] for r in theirs]) for key in keys[1:4]}
    finish(
        cpu_ratio=ratios["cpu"],
        cpu_ratio_steps=ratios["steps"],
        cpu_ratio_process=ratios["process"],
        params=ours[0]["params"],
        nanogpt_params=theirs[0]["params"],
        val_loss=[round(run["val_loss"], 4) for run in ours],
        nanogpt_val_loss=[round(run["val_loss"], 4) for run in theirs],
        nanogpt_own_estimate=theirs[0]["own_estimate"],
    )


if __name__ == "__main__":
    main()

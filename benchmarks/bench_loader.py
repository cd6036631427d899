"""How fast loaders make batches: against a training step, nanoGPT's get_batch and modded-nanogpt's generator.

    uv run benchmarks/bench_loader.py [--nanogpt PATH/TO/nanoGPT] [--modded PATH/TO/modded-nanogpt]

One thread, CPU time of the whole process (so the threads that look for documents are counted), tokens drawn at random,
documents as long as FineWeb's in GPT-2's tokens (median 403, mean 690). Files are in the page cache.

`vs_step`: tokens per CPU second of the slowest loader over those that a training step of 10M parameters takes
(gpt_core's loop, eager float32, batches of 8 x 256 for both).

`vs_nanogpt`: nanoGPT's CPU time per batch over the slowest loader's, at 32 x 1024 and at 12 x 64; both sides make
inputs and targets of int64. Each of our loaders is asked for batches without its prefetching thread. Not compared are
hf_streaming, which tokenizes, and grokking, whose rows have 5 tokens.

`vs_modded`: CPU time over ours for one pass over one shard with `document_aligned`, from opening the files to the end
of the shard: reading, finding the documents (theirs twice over the first 6M tokens), cutting and joining them, inputs,
targets and cu_seqlens, and beginning a second, tiny shard. Theirs makes inputs of int32, ours of int64. Left out of
theirs: the hash of bigrams, page-locked memory and copies to a GPU. The smallest ratio over batch sizes and ranks.
"""

import argparse
import ast
import glob
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from _bench import alternate, finish, median, table
from bench_train import TEN_MILLION, our_step, random_characters

import gpt_data
from gpt_data.loaders import mixture
from gpt_data.tokenizers import ByteTokenizer

BOUNDARY, VOCABULARY = 50256, 50257
SHAPES = ((32, 1024), (12, 64))
MODDED_CASES = ((16384, 1), (16384, 8), (49152, 8))  # tokens of a rank and batch, ranks
CAP = 2048
DRAWN = 20  # batches of a timed turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="folder of a checkout of karpathy/nanoGPT")
    parser.add_argument("--modded", type=Path, help="folder of a checkout of KellerJordan/modded-nanogpt")
    parser.add_argument("--tokens", type=int, default=40_000_000, help="of the training shard")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = documents(Path(folder) / "documents", args.tokens)
        vs_modded = against_modded(args.modded, dataset, args.rounds) if args.modded else None
        vs_nanogpt = against_nanogpt(args.nanogpt, dataset, args.rounds) if args.nanogpt else None
        vs_step = against_step(Path(folder), dataset, args.rounds)
    finish(vs_step=vs_step, vs_nanogpt=vs_nanogpt, vs_modded=vs_modded)


# --- the data ----------------------------------------------------------------------------------------------------


def documents(folder: Path, tokens: int) -> Path:
    """A dataset of the speedrun's files, one shard and a tiny second one; every second run of 64 targets is masked."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    spread = np.sqrt(2 * np.log(690 / 403))
    shards = []
    for index, size in enumerate((tokens, 100_000)):
        ids = rng.integers(BOUNDARY, size=size, dtype=np.uint16)
        lengths = rng.lognormal(np.log(403), spread, size // 300).astype(int).clip(2)
        starts = np.cumsum([0, *lengths])
        ids[starts[starts < size]] = BOUNDARY
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, size
        content = header.tobytes() + ids.astype("<u2").tobytes()
        (folder / f"train_{index:06d}.bin").write_bytes(content)
        (folder / f"train_mask_{index:06d}.bin").write_bytes((np.arange(size) // 64 % 2).astype(np.uint8).tobytes())
        digest = hashlib.sha256(content).hexdigest()
        shards.append(gpt_data.ShardInfo(f"train_{index:06d}.bin", size, digest, 1024, f"train_mask_{index:06d}.bin"))
    split = gpt_data.SplitInfo(sum(s.tokens for s in shards), 4 * tokens, len(shards), tuple(shards))
    boundary, splits = gpt_data.Boundary(BOUNDARY, "start"), {"train": split, "val": split}
    info = gpt_data.DatasetInfo(folder, "bench", "uint16", VOCABULARY, "none", splits, {}, {}, boundary)
    ByteTokenizer().save(info.tokenizer_dir)  # mixtures compare tokenizers; nothing is decoded
    info.save()
    return folder


def our_loaders(dataset: Path) -> dict[str, Callable[..., gpt_data.Splits]]:
    """Name -> factory of (context_length, device_batch_size)."""
    whole = {"dataset": dataset, "prefetch": 0, "loss_on": "all"}
    shares = {"random_windows": 3, "shuffled_windows": 2, "best_fit": 1}
    sources = [{"loader": name, "dataset": dataset, "weight": weight} for name, weight in shares.items()]
    return {
        "random_windows": partial(gpt_data.random_windows, **whole),
        "shuffled_windows": partial(gpt_data.shuffled_windows, **whole),
        "sequential": partial(gpt_data.sequential, **whole),
        "document_aligned": partial(gpt_data.document_aligned, **whole),
        "best_fit": partial(gpt_data.best_fit, **whole),
        "best_fit, split": partial(gpt_data.best_fit, long_documents="split", **whole),
        "packed_chat, masked": partial(gpt_data.packed_chat, **(whole | {"loss_on": "mask"})),
        "mixture of three": partial(mixture, sources, prefetch=0, loss_on="all"),
        "arithmetic": partial(gpt_data.arithmetic, max_samples=100_000, prefetch=0),
    }


def our_sides(dataset: Path, B: int, T: int) -> dict[str, Callable[[], None]]:
    loaders = our_loaders(dataset)
    return {name: draw_batches(make(context_length=T, device_batch_size=B)) for name, make in loaders.items()}


def draw_batches(splits: gpt_data.Splits) -> Callable[[], None]:
    """Takes `DRAWN` batches."""

    def run() -> None:
        for _ in range(DRAWN):
            next(splits.train)

    return run


# --- a training step ---------------------------------------------------------------------------------------------


def against_step(folder: Path, dataset: Path, rounds: int) -> float:
    B, T = TEN_MILLION["batch"], TEN_MILLION["context"]
    step = our_step(TEN_MILLION, random_characters(folder, TEN_MILLION["vocab_size"]), False, "float32")
    sides = {
        "training step": step,
        **{
            name: draw_batches(make(context_length=T, device_batch_size=B))
            for name, make in our_loaders(dataset).items()
        },
    }
    seconds = {name: median(times) for name, times in alternate(sides, max(3, rounds // 3)).items()}
    rates = {name: B * T / s * (1 if name == "training step" else DRAWN) for name, s in seconds.items()}
    rows = [(name, rate, rate / rates["training step"]) for name, rate in rates.items()]
    print(table((f"B={B}, T={T}, 10M parameters", "tokens / CPU s", "of the step"), rows), end="\n\n", flush=True)
    return min(ratio for name, _, ratio in rows if name != "training step")


# --- nanoGPT -----------------------------------------------------------------------------------------------------


def against_nanogpt(checkout: Path, dataset: Path, rounds: int) -> float:
    ratios = []
    for B, T in SHAPES:
        sides = {"nanoGPT": nanogpt_batches(checkout, dataset, B, T)}
        sides |= {
            name: draw_batches(make(context_length=T, device_batch_size=B))
            for name, make in our_loaders(dataset).items()
        }
        seconds = {name: median(times) / DRAWN for name, times in alternate(sides, rounds, warmup=3).items()}
        rows = [(name, 1e6 * s, B * T / s / 1e6, seconds["nanoGPT"] / s) for name, s in seconds.items()]
        print(
            table((f"B={B}, T={T}", "CPU us / batch", "M tokens / CPU s", "vs nanoGPT"), rows), end="\n\n", flush=True
        )
        ratios += [ratio for name, *_, ratio in rows if name != "nanoGPT"]
    return min(ratios)


def nanogpt_batches(checkout: Path, dataset: Path, B: int, T: int) -> Callable[[], None]:
    """`get_batch('train')` of its train.py, on the same shard without its header."""
    folder = dataset.parent / "nanogpt"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "train.bin").write_bytes((dataset / "train_000000.bin").read_bytes()[1024:])
    cpu = {"device_type": "cpu", "device": "cpu"}
    names = definitions(checkout / "train.py", ["get_batch"], np=np, torch=torch, os=os, **cpu)
    names |= {"data_dir": str(folder), "block_size": T, "batch_size": B}

    def run() -> None:
        for _ in range(DRAWN):
            names["get_batch"]("train")

    return run


# --- modded-nanogpt ----------------------------------------------------------------------------------------------


def against_modded(checkout: Path, dataset: Path, rounds: int) -> float:
    rows = []
    for tokens, ranks in MODDED_CASES:
        theirs = partial(modded_pass, checkout / "train_gpt.py", dataset, tokens, ranks)
        ours = partial(our_pass, dataset, tokens, ranks)
        compare_batches(modded_batches(checkout / "train_gpt.py", dataset, tokens, ranks), dataset, tokens, ranks)
        seconds = alternate({"modded": theirs, "ours": ours}, max(3, rounds // 3))
        modded, own = (median(seconds[name]) for name in ("modded", "ours"))
        rows.append((tokens, ranks, ours(), 1e3 * modded, 1e3 * own, modded / own))
    header = ("tokens / rank", "ranks", "batches", "modded-nanogpt CPU ms", "ours CPU ms", "ratio")
    print(table(header, rows), end="\n\n", flush=True)
    return min(row[-1] for row in rows)


def our_loader(dataset: Path, tokens: int, ranks: int) -> gpt_data.Loader:
    return gpt_data.document_aligned(
        dataset, CAP, tokens // CAP, world_size=ranks, max_document=CAP, loss_on="all", prefetch=0
    ).train


def our_pass(dataset: Path, tokens: int, ranks: int) -> int:
    """Number of batches of the first shard; takes one more, from wherever it comes. Rank 0 of `ranks`."""
    loader, count = our_loader(dataset, tokens, ranks), 0
    while (state := loader.state_dict())["epoch"] == state["shard"] == 0:
        next(loader)
        count += 1
    return count - 1


def modded_pass(source: Path, dataset: Path, tokens: int, ranks: int) -> None:
    for _ in modded_batches(source, dataset, tokens, ranks):
        pass


def modded_batches(source: Path, dataset: Path, tokens: int, ranks: int) -> Iterator[Any]:
    """What its generator yields for rank 0 of `ranks` on the first shard."""
    wanted = ["_load_data_shard", "BOS_ID", "TRAIN_MAX_NUM_DOCS", "Shard", "distributed_data_generator"]
    dist = SimpleNamespace(is_initialized=lambda: True, get_rank=lambda: 0, get_world_size=lambda: ranks)
    names = definitions(
        source,
        [*wanted, "next_multiple_of_n"],
        without_gpu=True,
        torch=torch,
        Tensor=torch.Tensor,
        np=np,
        threading=threading,
        glob=glob,
        math=math,
        Path=Path,
        dist=dist,
        get_bigram_hash=lambda ids: ids,
    )
    generator = names["distributed_data_generator"](str(dataset / "train_0*.bin"), tokens * ranks, CAP)
    try:
        yield from generator
    except (StopIteration, RuntimeError, TypeError):  # it ends by calling the loader of a shard that is not there
        return


def compare_batches(theirs: Iterator[Any], dataset: Path, tokens: int, ranks: int) -> None:
    """Both sides do the same work: equal inputs, targets and documents."""
    ours = our_loader(dataset, tokens, ranks)
    for _ in range(5):
        batch, (inputs, targets, lengths, *_) = next(ours), next(theirs)
        assert torch.equal(batch.inputs[0], inputs.long()) and torch.equal(batch.targets[0], targets)
        assert batch.cu_seqlens is not None
        assert batch.cu_seqlens.unique().tolist() == lengths.unique().tolist()


class _OnCPU(ast.NodeTransformer):
    """Takes page-locked memory and the GPU out of a function."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [k for k in node.keywords if k.arg != "pin_memory"]
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("cpu") if node.value == "cuda" else node


def definitions(source: Path, names: list[str], without_gpu: bool = False, **given: Any) -> dict[str, Any]:
    """The functions, classes and constants of a peer's script, without running the script."""
    if not source.is_file():
        raise SystemExit(f"{source} is not there; give the folder of a checkout that holds {source.name}")
    found = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if defines(node) in names]
    if missing := set(names) - {defines(node) for node in found}:
        raise SystemExit(f"{source} does not define {', '.join(sorted(missing))}; is it another version?")
    module = ast.Module(found, [])
    if without_gpu:
        module = ast.fix_missing_locations(_OnCPU().visit(module))
    namespace = dict(given)
    exec(compile(module, str(source), "exec"), namespace)
    return namespace


def defines(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


if __name__ == "__main__":
    main()

"""CPU time of an optimizer step against torch.optim, microsoft/dion and KellerJordan/Muon.

    uv run benchmarks/bench_optim.py [--dion PATH/TO/dion] [--muon PATH/TO/Muon] [--sizes 10m 124m] [--threads 1 2]

Ratios are the peer's CPU time (all threads) over ours: above 1, ours is faster. Sides have equal parameters and
gradients and take turns in one process. Sizes: nanoGPT's 10 M characters model and GPT-2 124 M.

Muon: the matrices of one layer, since all layers are equal, with queries, keys and values apart on every side; five
steps of iteration, nesterov, weight decay. The peers compute in bfloat16, ours in float32 on a CPU; a processor without
bfloat16 units makes that unfair, so the keys that end in `_float32` give the peers float32 as well. AdamW: all
parameters of the model, torch's fused kernel with equal groups. Slow peers are called less often, down to once.
"""

import argparse
import importlib
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from _bench import alternate, finish, load_peer, median, table
from torch import Tensor, nn

from gpt_core.models import gpt
from gpt_optim import Muon, NorMuon, adamw

Step = Callable[[], Any]

SIZES: dict[str, dict[str, int]] = {
    "10m": {"vocab_size": 65, "context_length": 256, "n_layer": 6, "n_head": 6, "n_embd": 384},
    "124m": {"vocab_size": 50257, "context_length": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768},
}
LR, MOMENTUM, WEIGHT_DECAY = 0.02, 0.95, 0.1
PATIENCE = 20.0
"""CPU seconds that the timed calls of a peer may take; a first call beyond it is the only one, and counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dion", type=Path, help="folder of a checkout of microsoft/dion")
    parser.add_argument("--muon", type=Path, help="folder of a checkout of KellerJordan/Muon")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="timed calls of each side")
    parser.add_argument("--float32-only", action="store_true", help="skip the peers' bfloat16 (minutes without units)")
    args = parser.parse_args()
    native = getattr(torch.cpu, "get_capabilities", dict)().get("avx512_bf16", "unknown")
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, native bfloat16: {native}")
    rows, figures = [], {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        for size in args.sizes:
            suffix = ("" if size == "10m" else f"_{size}") + ("" if threads == 1 else f"_{threads}_threads")
            pairs = matrix_pairs(SIZES[size]["n_embd"], args.dion, args.muon, args.float32_only)
            for key in [*pairs, "adamw_vs_torch"]:
                ours, theirs = pairs[key] if key in pairs else adamw_pair(SIZES[size])
                torch.compiler.reset()  # dion compiles one function for all shapes, of which torch allows eight
                our_ms, their_ms = compare(ours, theirs, args.rounds)
                figures[key + suffix] = their_ms / our_ms
                rows.append((key, size, threads, our_ms, their_ms, their_ms / our_ms))
                print(f"{key}{suffix}: {their_ms / our_ms:.3f}", file=sys.stderr, flush=True)
    print(table(("figure", "size", "threads", "ours, CPU ms", "peer, CPU ms", "ratio"), rows))
    finish(**figures)


def compare(ours: Step, theirs: Step, rounds: int) -> tuple[float, float]:
    """CPU milliseconds of both, medians; they take turns."""
    alternate({"ours": ours}, 1)
    first = alternate({"theirs": theirs}, 1, warmup=0)["theirs"][0]
    repeats = min(rounds, int(PATIENCE / first))
    if not repeats:
        return 1e3 * median(alternate({"ours": ours}, rounds)["ours"]), 1e3 * first
    seconds = alternate({"ours": ours, "theirs": theirs}, repeats, warmup=0)
    return 1e3 * median(seconds["ours"]), 1e3 * median(seconds["theirs"])


def matrix_pairs(
    width: int, dion: Path | None, keller_jordan: Path | None, float32_only: bool
) -> dict[str, tuple[Step, Step]]:
    """Figure -> (our step, the peer's), on one layer: queries, keys, values, projection, and both of the MLP."""
    shapes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)]
    rates: dict[str, Any] = {"lr": LR, "weight_decay": WEIGHT_DECAY}
    muon = Muon(matrices(shapes), momentum=MOMENTUM, **rates).step
    normuon = NorMuon(matrices(shapes), momentum=MOMENTUM, **rates).step

    theirs = torch.optim.Muon(matrices(shapes), momentum=MOMENTUM, **rates).step
    in_float32 = within(lambda: mock.patch.object(torch, "bfloat16", torch.float32), theirs)
    pairs = {"muon_vs_torch_float32": (muon, in_float32), "normuon_vs_torch_float32": (normuon, in_float32)}
    if not float32_only:
        pairs |= {"muon_vs_torch": (muon, theirs), "normuon_vs_torch": (normuon, theirs)}
    if keller_jordan:
        peer = load_peer(keller_jordan / "muon.py", "keller_jordan_muon")
        theirs = peer.SingleDeviceMuon(matrices(shapes), momentum=MOMENTUM, **rates).step
        in_float32 = within(lambda: mock.patch.object(Tensor, "bfloat16", Tensor.float), theirs)
        pairs["muon_vs_kellerjordan_float32"] = (muon, in_float32)
        if not float32_only:
            pairs["muon_vs_kellerjordan"] = (muon, theirs)
    if dion:
        peer = dion_package(dion)
        for ours, name in ((muon, "Muon"), (normuon, "NorMuon")):
            make, options = getattr(peer, name), {"mu": MOMENTUM, "nesterov": True, **rates}
            theirs = make(matrices(shapes), newton_schulz_func=dion_float32, **options).step
            pairs[f"{name.lower()}_vs_dion_float32"] = (ours, theirs)
            if not float32_only:
                pairs[f"{name.lower()}_vs_dion"] = (ours, make(matrices(shapes), **options).step)
    return pairs


def matrices(shapes: list[tuple[int, int]]) -> list[nn.Parameter]:
    """Weights with gradients, the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(0.02 * torch.randn(shape, generator=generator)) for shape in shapes]
    for weight in weights:
        weight.grad = 1e-3 * torch.randn(weight.shape, generator=generator)
    return weights


def within(context: Callable[[], AbstractContextManager[Any]], step: Step) -> Step:
    def run() -> None:
        with context():
            step()

    return run


def dion_package(folder: Path) -> Any:
    if not (folder / "dion" / "muon.py").is_file():
        raise SystemExit(f"{folder} is no checkout of microsoft/dion: it has no dion/muon.py")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("dion")
    finally:
        sys.path.pop(0)


@torch.compile(fullgraph=True, dynamic=False)
def dion_float32(x_KMN: Tensor, epsilon: float | Tensor = 1e-7) -> Tensor:
    """dion takes any function here; this is the usual iteration, compiled as its own is, in float32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide_KMN = (x_KMN.mT if x_KMN.size(-2) > x_KMN.size(-1) else x_KMN).float()
    wide_KMN = wide_KMN / (wide_KMN.norm(dim=(-2, -1), keepdim=True) + epsilon)
    for _ in range(5):
        gram_KMM = wide_KMN @ wide_KMN.mT
        wide_KMN = a * wide_KMN + (b * gram_KMM + c * gram_KMM @ gram_KMM) @ wide_KMN
    return wide_KMN.mT if x_KMN.size(-2) > x_KMN.size(-1) else wide_KMN


def adamw_pair(size: dict[str, int]) -> tuple[Step, Step]:
    """All parameters of the model, decay on matrices only."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        sizes = {key: size[key] for key in ("n_layer", "n_head", "n_embd")}
        models.append(gpt(size["vocab_size"], size["context_length"], preset="gpt2_pre", **sizes))
        for p in models[-1].parameters():
            p.grad = 1e-3 * torch.randn_like(p)
    ours = adamw(models[0], 6e-4, weight_decay=WEIGHT_DECAY)
    params = list(models[1].parameters())
    groups = [
        {"params": [p for p in params if p.dim() >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]
    theirs = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
    return repeated(ours.step), repeated(theirs.step)


def repeated(step: Step, times: int = 5) -> Step:
    """A step of AdamW alone is short beside the clock's tick."""

    def run() -> None:
        for _ in range(times):
            step()

    return run


if __name__ == "__main__":
    main()

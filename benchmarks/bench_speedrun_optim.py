"""gpt_optim.speedrun beside the optimizer class of modded-nanogpt's record 68, on the same weights and gradients.

    git -C MODDED show 9e53f9e3:train_gpt.py > train_gpt_68.py
    uv run benchmarks/bench_speedrun_optim.py --script train_gpt_68.py

Both train a toy model with the record's parameters, in bfloat16, for ten steps in which head and embedding part; the
shapes, schedules and gradients are those of gpt-optim's tests (speedrun_worker.py). Only the classes are read from the
script; what CPUs lack is replaced on its side: its Triton kernels by the products that they compute, torch.compile by
nothing, the shift of uint32 in its last function by one of int32. Figures:

    adam_equal        share of the weights of Adam's bfloat16 tensors that are equal bit by bit in the end
    scalars_distance  largest distance of its float32 ones
    matrices_equal    the same share for NorMuon's, when both orthogonalise in float32
    matrices_equal_bfloat16   and in bfloat16, where five polynomials multiply one rounding by up to 989
    matrices_distance_bfloat16  root mean square distance then, over that of the weights from where they began
    step_ratio        CPU time of our step over its, for a bank of ten layers of width 256
"""

import argparse
import ast
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from _bench import alternate, finish, load_peer, median
from torch import Tensor, nn

import gpt_optim
from gpt_optim import factories

TESTS = Path(__file__).parents[1] / "packages" / "gpt-optim" / "tests"
toy = load_peer(TESTS / "speedrun_worker.py", "speedrun_worker")

NAMES = ("polar_express_coeffs", "polar_express", "ParamConfig", "NorMuonAndAdam")
MATRICES = ("attn", "mlp")
ADAM = {"lr": 0.008, "eps": 1e-10, "weight_decay": 0.005}
NORMUON = {"lr": 0.023, "momentum": 0.95, "beta2": 0.95, "weight_decay": 1.2}
TABLE = {  # label: factor of the rate, betas, factor of the decay
    "scalars": (5.0, (0.9, 0.99), 0.0),
    "value_embed": (75.0, (0.75, 0.95), 5.0),
    "bigram_embed": (75.0, (0.75, 0.95), 5.0),
    "smear_gate": (0.01, (0.9, 0.99), 0.0),
    "skip_gate": (0.05, (0.9, 0.99), 0.0),
    "attn_gate_bank": (1.0, (0.9, 0.99), 1.0),
    "ve_gate_bank": (1.0, (0.9, 0.99), 1.0),
    "x0_lambdas": (5.0, (0.65, 0.95), 0.0),
    "lm_head": (1.0, (0.5, 0.95), 150.0),
    "embed": (1.0, (0.5, 0.95), 150.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, required=True, help="train_gpt.py of record 68")
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each side")
    args = parser.parse_args()
    if not args.script.is_file():
        raise SystemExit(f"{args.script} is not there; see --help for how to get it")
    torch.set_num_threads(1)
    source = args.script.read_text(encoding="utf-8")
    theirs, ours, _ = ten_steps(source, torch.float32)
    figures: dict[str, float] = {
        "adam_equal": equal(theirs, ours, [n for n in TABLE if theirs[n].dtype == torch.bfloat16]),
        "scalars_distance": max(float((theirs[n] - ours[n]).abs().max()) for n in ("scalars", "x0_lambdas")),
        "matrices_equal": equal(theirs, ours, MATRICES),
    }
    theirs, ours, first = ten_steps(source, torch.bfloat16)
    figures["matrices_equal_bfloat16"] = equal(theirs, ours, MATRICES)
    figures["matrices_distance_bfloat16"] = sum(
        float((theirs[n] - ours[n]).float().norm() / (theirs[n] - first[n]).float().norm()) / 2 for n in MATRICES
    )
    figures["step_ratio"] = step_ratio(source, args.rounds)
    finish(**figures)


def classes(source: str, dtype: torch.dtype) -> dict[str, Any]:
    """The script's optimizer and what it uses, orthogonalising in `dtype`."""
    if dtype == torch.float32:
        source = source.replace("X = G.bfloat16()", "X = G.float()")
    tree = ast.parse(source)
    named = lambda node: (
        getattr(node, "name", None) or (getattr(node.targets[0], "id", None) if isinstance(node, ast.Assign) else None)
    )
    found = [node for node in tree.body if named(node) in NAMES]
    if len(found) != len(NAMES):
        raise SystemExit(f"the script must define {', '.join(NAMES)}, as record 68 does")
    space: dict[str, Any] = {"torch": torch, "nn": nn, "Tensor": Tensor, "dist": dist, "dataclass": dataclass}
    space |= {"XXT": xxt, "ba_plus_cAA": ba_plus_caa, "__name__": "record_68"}
    as_it_is = lambda function=None, **options: function or (lambda function: function)
    sys.modules.setdefault("record_68", sys.modules[__name__])  # dataclasses look their module up
    with mock.patch.object(torch, "compile", as_it_is):
        exec(compile(ast.Module(found, []), "train_gpt.py", "exec"), space)
    space["NorMuonAndAdam"]._cautious_wd_and_update_inplace = staticmethod(update_in_place)
    return space


def xxt(x: Tensor, out: Tensor) -> None:
    out.copy_(x @ x.mT)


def ba_plus_caa(a: Tensor, alpha: float, beta: float, out: Tensor) -> None:
    out.copy_(beta * a.float() + alpha * (a.float() @ a.float()))


def update_in_place(p: Tensor, mantissa: Tensor, grad: Tensor, decay: Tensor, rate: Tensor) -> None:
    """Decay and update of float32 weights in two halves, in the script's order of operations, on int32."""
    high, low = p.view(torch.int16), mantissa.view(torch.int16)
    weight = ((high.int() << 16) | (low.int() & 0xFFFF)).view(torch.float32)
    grad = grad.float()
    mask = (grad * weight) >= 0
    bits = (weight - (weight * mask * decay * rate) - (grad * rate)).view(torch.int32)
    high.copy_((bits >> 16).to(torch.int16))
    low.copy_((bits & 0xFFFF).to(torch.int16))


def their_optimizer(space: dict[str, Any], model: nn.Module) -> Any:
    table: dict[str, dict[str, Any]] = {}
    for name, p in model.named_parameters():
        p.label = name  # ty: ignore[missing-attribute]  # as the script marks them
        if name in MATRICES:
            rows = p.size(-1) if name == "attn" else p.size(-2)
            p.reshape = (p.numel() // rows // p.size(-1), rows, p.size(-1))  # ty: ignore
            table[name] = {"optim": "normuon", "comms": "sharded", "adam_betas": None}
        else:
            rate, betas, decay = TABLE[name]
            table[name] = {"optim": "adam", "comms": "sharded", "adam_betas": betas, "lr_mul": rate, "wd_mul": decay}
    order = list(table)
    return space["NorMuonAndAdam"](model.named_parameters(), table, order, order, ADAM, NORMUON)


def ten_steps(source: str, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Weights of both in the end, and those of the beginning."""
    models = [toy.Toy(torch.bfloat16) for _ in range(2)]
    first = {name: p.detach().clone() for name, p in models[0].named_parameters()}
    theirs = their_optimizer(classes(source, dtype), models[0])
    iterate = partial(gpt_optim.polar_express, dtype=dtype, form="direct")
    with mock.patch.dict(factories.ORTHOGONALIZERS, polar_express=iterate):
        ours = gpt_optim.speedrun(models[1], untie_at=toy.SPLIT)
    for step in range(toy.STEPS):
        for model in models:
            toy.backward(model, toy.gradients(step))
        for config in theirs.param_cfgs.values():
            config.lr = config.initial_lr * toy.RATE(step)
            if config.optim == "normuon":
                config.momentum = toy.MOMENTUM(step)
        theirs.step(do_adam=step % 2 == 1)
        if step == toy.SPLIT:
            theirs.copy_lm_state_to_embed()
        toy.set_rates(ours, step)
        ours.step()
        ours.zero_grad()
    ends = [{name: p.detach() for name, p in model.named_parameters()} for model in models]
    return ends[0], ends[1], first


def equal(theirs: dict[str, Tensor], ours: dict[str, Tensor], names: Any) -> float:
    same = [(theirs[name] == ours[name]).flatten() for name in names]
    return float(torch.cat(same).double().mean())


class Bank(nn.Module):
    def __init__(self, layers: int = 10, width: int = 256):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        fill = lambda *shape: nn.Parameter((torch.randn(shape, generator=generator) / 32).bfloat16())
        self.attn = fill(layers, 4 * width, width)
        self.mlp = fill(layers, 2, 4 * width, width)


def step_ratio(source: str, rounds: int) -> float:
    """Matrices only, in float32 inside: few CPUs multiply bfloat16."""
    models = [Bank() for _ in range(2)]
    theirs, ours = their_optimizer(classes(source, torch.float32), models[0]), gpt_optim.speedrun(models[1])
    grads = [torch.randn_like(p) * 1e-3 for p in models[0].parameters()]

    def run(model: nn.Module, step: Any) -> None:
        for p, grad in zip(model.parameters(), grads, strict=True):
            p.grad = grad.clone()
        step()

    sides = {"ours": partial(run, models[1], ours.step), "theirs": partial(run, models[0], theirs.step)}
    seconds = alternate(sides, rounds)
    return median(seconds["ours"]) / median(seconds["theirs"])


if __name__ == "__main__":
    main()

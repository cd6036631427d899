"""MuonAdamW on one process against the readable rules of `reference.py`, torch's optimizers and known figures.

The twin below reads every option from the optimizer's groups at every step, and keeps weights and state of its own. In
float64 both must agree to rounding; float32 is compared by the length of a step, since five Newton-Schulz steps
amplify a rounding about five hundred times.
"""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gpt_optim import (
    DistAdamW,
    DistMuonAdamW,
    Muon,
    MuonAdamW,
    NorMuon,
    newton_schulz,
    param_groups,
    polar_express,
    reference,
)
from gpt_optim.rules import default_rules, hf_gpt2_rules

F64 = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = F64) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=100 + i, dtype=dtype)) for i, shape in enumerate(shapes)]


def set_grads(optimizer: torch.optim.Optimizer, step: int) -> None:
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(everything):
        p.grad = random(*p.shape, seed=1000 * step + i, dtype=p.dtype)


class Twin:
    """The weights that an optimizer should have, by the readable rules."""

    def __init__(self, optimizer: MuonAdamW, iteration=reference.newton_schulz, dtype: torch.dtype = F64):
        self.optimizer, self.iteration, self.dtype = optimizer, iteration, dtype
        everything = [p for group in optimizer.param_groups for p in group["params"]]
        self.weights = {p: p.detach().to(dtype).clone() for p in everything}
        self.state: dict[tuple[Tensor, int], list[Tensor]] = {}
        self.taken = 0

    def step(self) -> None:
        self.taken += 1
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                grad = p.grad.to(self.dtype)
                if group["kind"] == "adamw":
                    self._adamw(p, grad, group)
                    continue
                matrices, grads = (t.reshape(-1, *t.shape[-2:]) for t in (self.weights[p], grad))
                results = [self._matrix((p, i), w, grads[i], group) for i, w in enumerate(matrices)]
                self.weights[p] = torch.stack(results).view(p.shape)

    def _matrix(self, key: tuple[Tensor, int], weight: Tensor, grad: Tensor, group: dict) -> Tensor:
        layout = {"split": group["split"], "transposed": group["transposed"]}
        options = {name: group[name] for name in ("lr", "momentum", "weight_decay", "nesterov", "scale", "cautious")}
        options |= layout | {"scale_decay": group["scale_decay"], "orthogonalize": self.iteration}
        average, *seconds = self.state.get(key, [torch.zeros_like(grad), *reference.zero_seconds(grad, **layout)])
        if group["kind"] == "muon":
            weight, average = reference.muon_step(weight, grad, average, **options)
        else:
            weight, average, seconds = reference.normuon_step(
                weight, grad, average, seconds, beta2=group["beta2"], **options
            )
        self.state[key] = [average, *seconds]
        return weight

    def _adamw(self, p: Tensor, grad: Tensor, group: dict) -> None:
        first, second = self.state.get((p, 0), [torch.zeros_like(grad), torch.zeros_like(grad)])
        options = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay", "cautious")}
        self.weights[p], *self.state[p, 0] = reference.adamw_step(
            self.weights[p], grad, first, second, self.taken, **options
        )

    def check(self, **tolerance: float) -> None:
        for p, expected in self.weights.items():
            torch.testing.assert_close(p.detach().to(self.dtype), expected, **(tolerance or EXACT))


def follow(optimizer: MuonAdamW, twin: Twin, steps: int = 5) -> None:
    """Every scalar changes with every step."""
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step)
            group["weight_decay"] = 0.3 / (1 + step) if step != 2 else 0.0
            group["momentum"] = 0.85 + 0.02 * step
            group["beta2"] = 0.9 + 0.01 * step
        set_grads(optimizer, step)
        twin.step()
        optimizer.step()
        optimizer.zero_grad()


SHAPES = {
    "tall": [(9, 4), (9, 4), (9, 4)],
    "wide": [(4, 9), (4, 9)],
    "square": [(6, 6)],
    "row": [(1, 7)],
    "column": [(7, 1)],
    "one": [(1, 1)],
    "bank": [(3, 5, 4), (3, 5, 4)],
    "bank of banks": [(2, 3, 4, 5)],
    "mixed": [(9, 4), (4, 9), (3, 4, 9), (9, 4), (6, 6)],
}
LAYOUTS = [
    ((12, 4), {"split": (4, 4, 4)}),
    ((16, 8), {"split": (8, 4, 4)}),  # grouped queries: keys and values are wide matrices
    ((10, 8), {"split": [8, 1, 1]}),
    ((2, 16, 8), {"split": (8, 4, 4)}),
    ((4, 9), {"transposed": True}),
    ((9, 4), {"transposed": True}),
    ((8, 16), {"transposed": True, "split": (8, 4, 4)}),
    ((3, 4, 12), {"transposed": True, "split": (4, 4, 4)}),
]
OPTIONS = [
    {"nesterov": False},
    {"cautious": True},
    {"cautious": True, "scale_decay": True},
    {"scale_decay": True},
    {"scale": "match_rms_adamw"},
    {"scale": "match_rms_adamw", "scale_decay": True, "cautious": True},
    {"scale": "spectral_unclamped"},
]
ITERATIONS = {"newton_schulz": newton_schulz, "polar_express": polar_express}


@pytest.mark.parametrize("kind", ["muon", "normuon"])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_any_shape(kind, shapes):
    optimizer = MuonAdamW(parameters(*shapes), kind=kind, orthogonalize=partial(newton_schulz, dtype=F64))
    twin = Twin(optimizer)
    follow(optimizer, twin)
    twin.check()


@pytest.mark.parametrize("kind", ["muon", "normuon"])
@pytest.mark.parametrize(("shape", "layout"), LAYOUTS)
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_fused_and_transposed_matrices(kind, shape, layout, scale):
    group = {"params": parameters(shape, shape), **layout}
    optimizer = MuonAdamW([group], kind=kind, scale=scale, orthogonalize=partial(newton_schulz, dtype=F64))
    twin = Twin(optimizer)
    follow(optimizer, twin)
    twin.check()


@pytest.mark.parametrize("kind", ["muon", "normuon"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
@pytest.mark.parametrize("iteration", ITERATIONS)
def test_options(kind, options, iteration):
    exact = partial(ITERATIONS[iteration], dtype=F64)
    optimizer = MuonAdamW(parameters((9, 4), (4, 9), (6, 6)), kind=kind, orthogonalize=exact, **options)
    twin = Twin(optimizer, getattr(reference, iteration))
    follow(optimizer, twin)
    twin.check()


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.99)])
def test_adamw(cautious, betas):
    optimizer = MuonAdamW(
        parameters((9, 4), (7,), (), (2, 3, 4)), kind="adamw", betas=betas, eps=1e-3, cautious=cautious
    )
    twin = Twin(optimizer)
    follow(optimizer, twin)
    twin.check()


@pytest.mark.parametrize(
    ("build", "iteration"),
    [(Muon, newton_schulz), (NorMuon, polar_express), (DistMuonAdamW, polar_express), (DistAdamW, polar_express)],
)
def test_variants_mix_kinds_in_one_optimizer(build, iteration):
    tall, wide, fused, vector, table = parameters((9, 4), (4, 9), (12, 4), (5,), (7, 3))
    groups = [
        {"params": [vector], "kind": "adamw", "lr": 0.01, "cautious": True},
        {"params": [tall, wide]},
        {"params": [fused], "kind": "normuon", "split": (4, 4, 4)},
        {"params": [table], "kind": "adamw", "lr": 0.02, "betas": (0.5, 0.9)},
    ]
    optimizer = build(groups, orthogonalize=partial(iteration, dtype=F64))
    kind = {Muon: "muon", NorMuon: "normuon", DistMuonAdamW: "muon", DistAdamW: "adamw"}[build]
    assert optimizer.param_groups[1]["kind"] == kind
    twin = Twin(optimizer, getattr(reference, iteration.__name__))
    follow(optimizer, twin)
    twin.check()


@pytest.mark.parametrize(("build", "iteration"), [(Muon, newton_schulz), (NorMuon, polar_express)])
def test_float32(build, iteration):
    """With the default iteration of each, in the dtype that not every processor takes by default."""
    shapes = [(48, 16), (16, 48), (16, 48), (24, 24)]
    optimizer = build(parameters(*shapes, dtype=torch.float32), orthogonalize=partial(iteration, dtype=torch.float32))
    twin = Twin(optimizer, getattr(reference, iteration.__name__))
    before = {p: w.clone() for p, w in twin.weights.items()}
    follow(optimizer, twin)
    for p, expected in twin.weights.items():
        assert (p.double() - expected).norm() < 1e-3 * (expected - before[p]).norm()


@pytest.mark.parametrize("rules", [default_rules, hf_gpt2_rules])
def test_hugging_face_gpt2(rules):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: GPT-2 is not tested")
    sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20, "n_positions": 6}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).double()
    groups = param_groups(model, rules(model, muon={"lr": 0.02}, adamw={"lr": 3e-3}))
    optimizer = DistMuonAdamW(groups, orthogonalize=partial(newton_schulz, dtype=F64))
    twin = Twin(optimizer)
    ids = torch.arange(12).view(2, 6) % 20
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        twin.step()
        optimizer.step()
        optimizer.zero_grad()
    twin.check(rtol=1e-7, atol=1e-9)

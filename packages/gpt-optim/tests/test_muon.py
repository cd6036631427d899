"""Muon: against its twin, against torch.optim.Muon, fused matrices, resuming, errors."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from gpt_optim import Muon, muon, newton_schulz, reference
from gpt_optim.factories import ORTHOGONALIZERS


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 8)
        self.qkv = nn.Linear(8, 16)  # 8 query rows, 4 key rows, 4 value rows
        self.up = nn.Linear(16, 32, bias=False)
        self.gate = nn.Linear(16, 32, bias=False)
        self.down = nn.Linear(32, 8, bias=False)
        self.lm_head = nn.Linear(8, 11, bias=False)

    def forward(self, ids):
        x = self.qkv(self.embed(ids))
        return self.lm_head(self.down(torch.tanh(self.up(x)) * self.gate(x)))


def backward(model: nn.Module, step: int) -> None:
    model.zero_grad()
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(11, (64,), generator=generator)
    nn.functional.cross_entropy(model(ids), ids.roll(1)).backward()


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_five_steps_equal_the_twin(monkeypatch, scale, nesterov):
    # Some processors multiply in bfloat16 by default, which the twin does not.
    monkeypatch.setitem(ORTHOGONALIZERS, "newton_schulz", partial(newton_schulz, dtype=torch.float32))
    model = Tiny()
    lr, wd, mu = 0.02, 0.1, 0.9
    optimizer = muon(model, lr, 3e-3, mu, wd, scale=scale)
    for group in optimizer.param_groups:
        group["nesterov"] = nesterov
    expected = {name: p.detach().double() for name, p in model.named_parameters()}
    averages = {name: torch.zeros_like(p) for name, p in expected.items()}
    squares = copy.deepcopy(averages)
    for step in range(1, 6):
        backward(model, step)
        for name, p in model.named_parameters():
            before, grad, average = expected[name], p.grad.double(), averages[name]
            if name in ("embed.weight", "lm_head.weight", "qkv.bias"):
                decay = wd if p.dim() == 2 else 0.0
                result = reference.adamw_step(
                    before, grad, average, squares[name], step, 3e-3, (0.9, 0.95), 1e-8, decay
                )
                expected[name], averages[name], squares[name] = result
            else:
                split = (8, 4, 4) if name == "qkv.weight" else None
                result = reference.muon_step(before, grad, average, lr, mu, wd, nesterov, scale, split)
                expected[name], averages[name] = result
        optimizer.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.double(), expected[name], rtol=1e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_five_steps_equal_torch(scale, dtype):
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in [(48, 16), (16, 48), (24, 24), (24, 24)]]
    ours = [nn.Parameter(p.clone()) for p in start]
    theirs = [nn.Parameter(p.clone()) for p in start]
    orthogonalize = partial(newton_schulz, dtype=dtype)
    mine = Muon(ours, lr=0.02, weight_decay=0.1, scale=scale, orthogonalize=orthogonalize)
    torchs = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn=scale)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        mine.step()
        torchs.step()
    for p, q, before in zip(ours, theirs, start, strict=True):
        # torch iterates in bfloat16: two ways to round it differ by one to three hundredths of an update.
        assert (p - q).norm() < 0.05 * (q - before).norm()


def test_stacks_equal_one_matrix_at_a_time():
    torch.manual_seed(3)
    together = [nn.Parameter(torch.randn(12, 20)) for _ in range(3)]
    apart = copy.deepcopy(together)
    optimizers = [Muon(together), *(Muon([p]) for p in apart)]
    for _ in range(3):
        for p, q in zip(together, apart, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q in zip(together, apart, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [(2**17, [(2, 3, 4, 4), (3, 1, 4, 8)]), (64, [(1, 3, 4, 4)] * 2 + [(2, 1, 4, 8), (1, 1, 4, 8)])],
)
def test_a_cpu_takes_what_fits_its_caches_and_missing_gradients_are_zeros(monkeypatch, entries, expected):
    monkeypatch.setattr("gpt_optim.stacks.PART", entries)
    shapes = []

    def spy(x):
        shapes.append(tuple(x.shape))
        return newton_schulz(x)

    parameters = [nn.Parameter(torch.randn(12, 4)) for _ in range(2)] + [nn.Parameter(torch.randn(3, 4, 8))]
    optimizer = Muon([{"params": parameters[:2], "split": (4, 4, 4)}, {"params": parameters[2:]}], orthogonalize=spy)
    for p in parameters[1:]:
        p.grad = torch.randn_like(p)
    before = parameters[0].detach().clone()
    optimizer.step()
    assert shapes == expected
    assert torch.equal(parameters[0], before)


def test_resuming_equals_never_stopping():
    model = Tiny()
    optimizer = muon(model, weight_decay=0.1)
    for step in range(6):
        if step == 3:
            resumed = copy.deepcopy(model)
            continued = muon(resumed, weight_decay=0.1)
            continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        backward(model, step)
        optimizer.step()
        if step >= 3:
            backward(resumed, step)
            continued.step()
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_each_part_of_a_model_may_have_a_rate_of_its_own():
    rates = {"embedding_learning_rate": 0.6, "head_learning_rate": 0.008, "vector_learning_rate": 0.04}
    model = Tiny()
    optimizer = muon(model, 0.05, **rates)
    by_parameter = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: by_parameter[p] for name, p in model.named_parameters()}
    assert found["qkv.weight"] == found["down.weight"] == 0.05
    assert (found["embed.weight"], found["lm_head.weight"], found["qkv.bias"]) == (0.6, 0.008, 0.04)
    with pytest.raises(ValueError, match="learning rates must be positive, got -1"):
        muon(model, head_learning_rate=-1)


def test_mistakes_are_named():
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    with pytest.raises(ValueError, match=r"takes matrices.*kind='adamw'"):
        Muon([vector])
    with pytest.raises(ValueError, match="kind must be"):
        Muon([{"params": [matrix], "kind": "sgd"}])
    with pytest.raises(ValueError, match="must add up to the rows"):
        Muon([matrix], split=(2, 1))
    with pytest.raises(ValueError, match="scale must be one of"):
        Muon([matrix], scale="other")
    with pytest.raises(ValueError, match="no hidden matrix"):
        muon(nn.Embedding(4, 4))
    with pytest.raises(ValueError, match="orthogonalizer must be one of"):
        muon(Tiny(), orthogonalizer="svd")

"""Options that the GPT speedrun needs: matrices in banks, rates in turn, Adam's eps and decay, orders of groups."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gpt_optim import MuonAdamW, NorMuon, newton_schulz, polar_express, reference
from gpt_optim.updates import PIECE

F64 = torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


@pytest.mark.parametrize("kind", ["muon", "normuon"])
def test_matrix_rows_are_matrices_of_a_bank(kind):
    """As parameters of their own, and as `split`, which keeps them together."""
    bank, fused = (nn.Parameter(random(3, 12, 4)) for _ in range(2))
    single = [nn.Parameter(m.clone()) for m in bank.detach().view(9, 4, 4)]
    exact = {"orthogonalize": partial(newton_schulz, dtype=F64), "kind": kind, "weight_decay": 0.1, "cautious": True}
    optimizers = [
        MuonAdamW([bank], matrix_rows=4, **exact),
        MuonAdamW([fused], split=(4, 4, 4), **exact),
        MuonAdamW(single, **exact),
    ]
    for step in range(3):
        bank.grad = random(3, 12, 4, seed=step)
        fused.grad = bank.grad.clone()
        for p, grad in zip(single, bank.grad.view(9, 4, 4), strict=True):
            p.grad = grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(bank, fused, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(bank.detach().view(9, 4, 4), torch.stack(list(single)).detach(), rtol=1e-12, atol=1e-13)
    assert optimizers[0].expected_state_bytes() == optimizers[2].expected_state_bytes()


@pytest.mark.parametrize("scale_decay", [False, True])
def test_rate_factors_take_turns(scale_decay):
    """Update, and decay where it goes with the scale, of every second matrix are three times as large."""
    bank = nn.Parameter(random(2, 2, 8, 4))
    before, bank.grad = bank.detach().clone(), random(2, 2, 8, 4, seed=1)
    options = {"weight_decay": 0.5, "scale_decay": scale_decay, "orthogonalize": partial(newton_schulz, dtype=F64)}
    MuonAdamW([bank], lr=0.1, rate_factors=(1.0, 3.0), **options).step()
    for i in range(4):
        plain = nn.Parameter(before.view(4, 8, 4)[i].clone())
        plain.grad = bank.grad.view(4, 8, 4)[i]
        rate = 0.3 if i % 2 else 0.1
        decay = 0.5 if scale_decay else 0.05 / rate
        MuonAdamW([plain], lr=rate, **(options | {"weight_decay": decay})).step()
        torch.testing.assert_close(bank.detach().view(4, 8, 4)[i], plain.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F64])
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("every_option", [False, True])
def test_adam_of_the_speedrun(dtype, cautious, every_option):
    """`raw_eps` and `squared_decay` against the readable rule; each is off without being asked for."""
    p = nn.Parameter(random(40, 5, dtype=dtype))
    rates = {"lr": 0.05, "betas": (0.75, 0.95), "eps": 0.02, "weight_decay": 0.4}
    options = {"raw_eps": True, "squared_decay": True} if every_option else {}
    optimizer = MuonAdamW([p], kind="adamw", cautious=cautious, **rates, **options)
    weight = p.detach().double()
    first = second = torch.zeros_like(weight)
    for step in range(1, 6):
        p.grad = random(40, 5, seed=step, dtype=dtype)
        if every_option and not cautious:
            decayed = weight * 0.05**2 * 0.4
            weight, first, second = reference.speedrun_adam_step(
                weight, p.grad.double(), first, second, step, **(rates | {"weight_decay": 0.0})
            )
            weight = weight - decayed
        else:
            rule = reference.speedrun_adam_step if every_option else partial(reference.adamw_step, cautious=cautious)
            weight, first, second = rule(weight, p.grad.double(), first, second, step, **rates)
        optimizer.step()
        tolerance = {torch.bfloat16: (2**-7, 1e-5), torch.float32: (1e-5, 1e-6), F64: (1e-12, 1e-12)}[dtype]
        torch.testing.assert_close(p.detach().double(), weight, rtol=tolerance[0], atol=tolerance[1])
        weight = p.detach().double()


@pytest.mark.parametrize("layout", ["in order", "transposed"])
def test_cautious_decay_in_pieces_is_that_of_the_whole(layout):
    """A tensor of several pieces, the last one shorter, and one whose entries are not in order."""
    rows, columns = PIECE // 64, 150
    value = random(columns, rows).T if layout == "transposed" else random(rows, columns)
    p = nn.Parameter(value)
    assert p.numel() > 2 * PIECE and p.numel() % PIECE and p.is_contiguous() == (layout == "in order")
    optimizer = MuonAdamW([p], kind="adamw", lr=0.1, weight_decay=0.5, cautious=True)
    weight, first, second = p.detach().clone(), *torch.zeros(2, rows, columns, dtype=F64)
    for step in (1, 2, 3):
        p.grad = torch.empty_like(p).copy_(random(rows, columns, seed=step))
        weight, first, second = reference.adamw_step(
            weight, p.grad, first, second, step, 0.1, (0.9, 0.95), 1e-8, 0.5, cautious=True
        )
        optimizer.step()
        torch.testing.assert_close(p.detach(), weight, rtol=1e-10, atol=1e-12)


def test_narrow_rounds_what_is_orthogonalized_and_its_update():
    matrices = [nn.Parameter(torch.zeros(4, 6)) for _ in range(2)]
    seen = []

    def orthogonalize(x: Tensor) -> Tensor:
        seen.append(x.dtype)
        return polar_express(x, dtype=torch.float32, form="direct")

    for p, narrow in zip(matrices, (True, False), strict=True):
        p.grad = random(4, 6, seed=3, dtype=torch.float32)
        NorMuon([p], lr=1.0, narrow=narrow, orthogonalize=orthogonalize).step()
    assert seen == [torch.bfloat16, torch.float32]
    narrow, wide = (p.detach() for p in matrices)
    assert torch.equal(narrow, narrow.bfloat16().float()) and not torch.equal(wide, wide.bfloat16().float())
    torch.testing.assert_close(narrow, wide, rtol=0, atol=2e-2)


def test_orders_name_every_group_once():
    params = [nn.Parameter(random(3, 2)) for _ in range(2)]
    groups = [{"params": [p], "kind": "adamw", "lr": 0.1, "name": name} for p, name in zip(params, "ab", strict=True)]
    for order in (["a"], ["a", "b", "b"], ["a", "c"]):
        with pytest.raises(ValueError, match="names every group exactly once"):
            MuonAdamW(groups, work_order=order)
    optimizer = MuonAdamW(groups, work_order=["b", "a"], reduce_order=["a", "b"])
    with pytest.raises(ValueError, match="the order of groups is fixed"):
        optimizer.add_param_group({"params": [nn.Parameter(random(2, 2))]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"matrix_rows": 5}, "matrix_rows must divide"),
        ({"matrix_rows": 2, "split": (2, 2)}, "matrix_rows must divide"),
        ({"rate_factors": (1.0, 0.0)}, "rate_factors must be positive"),
        ({"rate_factors": ()}, "rate_factors must be positive"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MuonAdamW([nn.Parameter(random(4, 4))], **options)

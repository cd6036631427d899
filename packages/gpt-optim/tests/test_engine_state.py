"""MuonAdamW in a training loop: updates at every n-th step, clipping, saving, loading, mistakes."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from gpt_optim import DistAdamW, Muon, MuonAdamW, NorMuon, reference
from gpt_optim.buckets import Pending


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(random(*shape, seed=100 + i, dtype=dtype)) for i, shape in enumerate(shapes)]


def add_grads(optimizer: torch.optim.Optimizer, step: int) -> None:
    """As a backward pass does: on top of what is there."""
    everything = [p for group in optimizer.param_groups for p in group["params"]]
    for i, p in enumerate(everything):
        grad = random(*p.shape, seed=1000 * step + i, dtype=p.dtype)
        p.grad = grad if p.grad is None else p.grad + grad


def everything(dtype: torch.dtype = torch.float32, **options) -> MuonAdamW:
    """An optimizer with every kind of group and state."""
    groups = [
        {"params": parameters((9, 4), (9, 4), (4, 9), dtype=dtype)},
        {"params": parameters((2, 8, 4), dtype=dtype), "kind": "normuon", "split": (4, 2, 2)},
        {"params": parameters((7, 3), (5,), dtype=dtype), "kind": "adamw", "every": 2, "lr": 0.01},
        {"params": parameters((6,), dtype=dtype), "kind": "adamw", "lr": 0.02, "cautious": True},
    ]
    return MuonAdamW(groups, weight_decay=0.1, **options)


def weights(optimizer: MuonAdamW) -> list[Tensor]:
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]


def train(optimizer: MuonAdamW, begin: int, end: int) -> None:
    for step in range(begin, end):
        for group in optimizer.param_groups:
            group["momentum"] = 0.85 + 0.01 * step
        add_grads(optimizer, step)
        optimizer.step()
        optimizer.zero_grad()


def test_a_group_that_waits_sees_the_sum_of_gradients():
    """The speedrun's cadence: matrices at every step, the rest at odd ones (counted from 0)."""
    matrix, table = parameters((6, 4), (7, 3), dtype=torch.float64)
    rare = {"params": [table], "kind": "adamw", "lr": 0.02, "every": 2}
    optimizer = MuonAdamW([{"params": [matrix]}, rare], weight_decay=0.1)
    expected = table.detach().clone()
    first = second = torch.zeros_like(expected)
    kept = torch.zeros_like(expected)
    for step in range(6):
        before = [matrix.detach().clone(), table.detach().clone()]
        add_grads(optimizer, step)
        kept = kept + random(7, 3, seed=1000 * step + 1, dtype=torch.float64)
        optimizer.step()
        assert not torch.equal(matrix, before[0])
        optimizer.zero_grad()
        assert matrix.grad is None
        if step % 2 == 0:
            assert torch.equal(table, before[1]) and torch.equal(table.grad, kept)
            continue
        expected, first, second = reference.adamw_step(
            expected, kept, first, second, step // 2 + 1, 0.02, (0.9, 0.95), 1e-8, 0.1
        )
        torch.testing.assert_close(table.detach(), expected, rtol=1e-9, atol=1e-10)
        kept = torch.zeros_like(kept)
        assert table.grad is None


def test_zero_grad_before_or_after_the_step_is_the_same():
    after, before = everything(), everything()
    for step in range(4):
        add_grads(after, step)
        after.step()
        after.zero_grad(set_to_none=False)
        before.zero_grad()
        add_grads(before, step)
        before.step()
    for p, q in zip(weights(after), weights(before), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("clip_muon", [False, True])
def test_clipping_scales_what_the_step_uses_by_the_norm_of_all(clip_muon):
    """Step 3 has a gradient a million times too large, and only Muon's momentum sees it as it is unless `clip_muon`."""
    optimizer, twin = everything(torch.float64, clip_muon=clip_muon), everything(torch.float64)
    for step, max_norm in enumerate((0.5, 100.0, 0.0, 0.25)):
        add_grads(optimizer, step)
        add_grads(twin, step)
        if step == 3:
            for each in (optimizer, twin):
                each.param_groups[0]["params"][0].grad *= 1e6
        due = [(p, group) for group in twin.param_groups for p in group["params"] if (step + 1) % group["every"] == 0]
        clipped, norm = reference.clipped([p.grad for p, _ in due], max_norm)
        for (p, group), grad in zip(due, clipped, strict=True):
            if max_norm and (clip_muon or group["kind"] == "adamw"):
                p.grad = grad
        torch.testing.assert_close(optimizer.clip_grad_norm_(max_norm), norm)
        for each in (optimizer, twin):
            each.step()
            each.zero_grad()
        for p, q in zip(weights(optimizer), weights(twin), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    for ours, theirs in zip(optimizer.state.values(), twin.state.values(), strict=True):  # momentum and moments
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    momentum = optimizer.state[optimizer.param_groups[0]["params"][0]]["momentum_buffer"]
    assert (float(momentum.abs().max()) > 1e4) is not clip_muon


def test_clipping_twice_measures_the_clipped_gradients():
    (p,) = parameters((6, 4))
    optimizer = Muon([p], clip_muon=True)
    p.grad = random(6, 4, seed=1)
    norm = p.grad.norm()
    torch.testing.assert_close(optimizer.clip_grad_norm_(0.5), norm)
    torch.testing.assert_close(optimizer.clip_grad_norm_(0.0), torch.tensor(0.5), rtol=1e-4, atol=0)


def test_a_closure_is_called_with_gradients_and_its_loss_returned():
    (p,) = parameters((6, 4))
    optimizer = Muon([p])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    assert torch.equal(optimizer.step(closure).detach(), before.square().sum())
    assert p.square().sum() < before.square().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("through_a_file", [False, True])
def test_another_instance_goes_on_where_one_was_saved(dtype, through_a_file):
    straight, saved, resumed = everything(dtype), everything(dtype), everything(dtype, lr=0.5, momentum=0.1)
    train(straight, 0, 8)
    train(saved, 0, 4)
    state = copy.deepcopy(saved.state_dict())
    if through_a_file:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    with torch.no_grad():
        for group, other in zip(resumed.param_groups, saved.param_groups, strict=True):
            for p, q in zip(group["params"], other["params"], strict=True):
                p.copy_(q)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["lr"] == 0.02
    train(saved, 4, 6)  # the state was copied: going on here changes nothing there
    train(resumed, 4, 8)
    for p, q in zip(weights(resumed), weights(straight), strict=True):
        assert torch.equal(p, q)


def test_torchs_schedulers_drive_it():
    optimizer = everything()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    rates = []
    for step in range(3):
        rates.append([group["lr"] for group in optimizer.param_groups])
        add_grads(optimizer, step)
        optimizer.step()
        scheduler.step()
    assert [group[0] for group in rates] == pytest.approx([0.02, 0.01, 0.02 / 3])
    assert [group[2] for group in rates] == pytest.approx([0.01, 0.005, 0.01 / 3])


def muon_of(*shapes: tuple[int, ...], build=Muon, **options) -> MuonAdamW:
    return build(parameters(*shapes), **options)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (muon_of((6, 4)), muon_of((6, 4), (6, 4)), r"groups of \[2\] parameters, this optimizer of \[1\]"),
        (muon_of((6, 4)), muon_of((4, 6)), r"\(1, 6, 4\) cannot be loaded from \(1, 4, 6\)"),
        (muon_of((6, 4)), muon_of((6, 4), build=NorMuon), "group 0 was saved with kind='normuon', here it is 'muon'"),
        (muon_of((6, 4)), muon_of((6, 4), build=DistAdamW), "saved with kind='adamw', here it is 'muon'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(ours, theirs, message):
    train(ours, 0, 2)
    train(theirs, 0, 2)
    before = copy.deepcopy(ours.state_dict())
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(theirs.state_dict())
    after = ours.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for key, value in before["state"][0].items():
        assert torch.equal(value, after["state"][0][key])


MATRIX = (6, 4)
MISTAKES = [
    (MATRIX, {"lr": -0.1}, "lr and weight_decay must not be negative, got -0.1"),
    (MATRIX, {"weight_decay": -0.1}, "lr and weight_decay must not be negative"),
    (MATRIX, {"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
    (MATRIX, {"beta2": -0.5}, r"beta2 must lie in \[0, 1\), got -0.5"),
    (MATRIX, {"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\).*\(0.9, 1.0\)"),
    (MATRIX, {"eps": -1.0}, "eps not below 0"),
    (MATRIX, {"scale": "big"}, "scale must be one of original, .*, got 'big'"),
    (MATRIX, {"every": 0}, "every must be a whole number of steps, at least 1, got 0"),
    (MATRIX, {"every": 1.5}, "every must be a whole number"),
    (MATRIX, {"kind": "sgd"}, "kind must be one of muon, normuon, adamw, got 'sgd'"),
    (MATRIX, {"momentun": 0.9}, "unknown group option 'momentun'; did you mean 'momentum'"),
    (MATRIX, {"split": (4, 4)}, r"split \(4, 4\) must add up to the rows of every matrix of the group, got 6"),
    (MATRIX, {"split": (6, 0)}, r"split \(6, 0\)"),
    (MATRIX, {"split": (3, 3), "transposed": True}, "must add up to the columns of every matrix of the group, got 4"),
    (MATRIX, {"split": (5, 1), "scale_decay": True}, "scale_decay needs blocks of one scale"),
    ((6,), {}, r"muon takes matrices, got a parameter of shape \(6,\): use kind='adamw'"),
    ((6,), {"kind": "normuon"}, "normuon takes matrices"),
    ((0, 4), {}, "not empty, got shape .0, 4."),
]


@pytest.mark.parametrize(("shape", "options", "message"), MISTAKES)
def test_mistakes_are_named_and_add_no_group(shape, options, message):
    optimizer = everything()
    count = len(optimizer.param_groups)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": parameters(shape), **options})
    assert len(optimizer.param_groups) == count
    train(optimizer, 0, 2)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match=r"real floating point numbers, got torch\.complex64"):
        Muon([nn.Parameter(torch.ones(4, 4, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="gradients must be 'local' or 'averaged', got 'mean'"):
        Muon(parameters(MATRIX), gradients="mean")
    with pytest.raises(ValueError, match=r"kind adamw needs an lr of its own, since 0\.02 is the matrices'"):
        Muon([{"params": parameters((6,)), "kind": "adamw"}])
    frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
    with pytest.raises(ValueError, match=r"shape \(4, 4\) does not require gradients: leave it out"):
        Muon([frozen])


def test_adamw_may_become_cautious_and_plain_again():
    switching, cautious, plain = (
        DistAdamW(parameters((5, 3)), weight_decay=0.5, cautious=i == 1, lr=0.1) for i in range(3)
    )
    for step, other in enumerate((plain, cautious, plain)):
        with torch.no_grad():
            other.param_groups[0]["params"][0].copy_(switching.param_groups[0]["params"][0])
        other.load_state_dict(switching.state_dict() | {"param_groups": other.state_dict()["param_groups"]})
        switching.param_groups[0]["cautious"] = other is cautious
        for optimizer in (switching, other):
            train(optimizer, step, step + 1)
        torch.testing.assert_close(weights(switching), weights(other), rtol=1e-6, atol=1e-7)
    train(cautious, 2, 3)
    assert not torch.allclose(weights(cautious)[0], weights(plain)[0]), "it matters"


def test_gradients_after_a_reduction_that_was_not_used_are_an_error():
    """Not a launch anew: another process may have none, and would not launch."""
    pending = Pending(parameters((2, 2)))
    assert not pending.is_current
    pending.launch(None, torch.ones(4))
    assert pending.is_current
    pending.params[0].grad = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match=r"neither used by step\(\) nor given up by the optimizer's zero_grad"):
        _ = pending.is_current
    pending.forget()
    assert not pending.is_current

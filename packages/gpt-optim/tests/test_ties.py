"""Parameters that are trained as one for a while (`Tie`)."""

import copy

import pytest
import torch
from torch import Tensor, nn

from gpt_optim import MuonAdamW, Tie
from gpt_optim.ties import due_at

F64 = torch.float64


def random(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def pair(transposed: bool, dtype: torch.dtype = F64) -> tuple[nn.Parameter, nn.Parameter]:
    head = nn.Parameter(random(4, 9, dtype=dtype))
    return head, nn.Parameter(
        (head.detach().T if transposed else head.detach()).clone(memory_format=torch.contiguous_format)
    )


def groups_of(*params: nn.Parameter, every: int = 1) -> list[dict]:
    return [{"params": [p], "kind": "adamw", "lr": 0.01, "weight_decay": 0.1, "every": every} for p in params]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_tied_pair_is_one_parameter_with_the_sum_of_both_gradients(transposed):
    head, embed = pair(transposed)
    (single,) = (nn.Parameter(head.detach().clone()),)
    optimizer = MuonAdamW(groups_of(head, embed), ties=[Tie(head, embed, transposed)])
    alone = MuonAdamW(groups_of(single))
    for step in range(4):
        head.grad, other = random(4, 9, seed=step), random(4, 9, seed=100 + step)
        single.grad = head.grad + other
        embed.grad = other.T.contiguous() if transposed else other
        for each in (optimizer, alone):
            each.step()
            each.zero_grad()
        torch.testing.assert_close(head, single, rtol=1e-12, atol=1e-12)
        assert torch.equal(embed, head.T if transposed else head) and embed.grad is None


def test_after_the_last_step_as_one_both_go_on_from_the_same_moments():
    head, embed = pair(True)
    twins = [nn.Parameter(p.detach().clone()) for p in (head, embed)]
    optimizer = MuonAdamW(groups_of(head, embed), ties=[Tie(head, embed, True, until=2)])
    plain = MuonAdamW(groups_of(*twins))
    for step in range(6):
        head.grad, embed.grad = random(4, 9, seed=step), random(9, 4, seed=50 + step)
        both = head.grad + embed.grad.T
        twins[0].grad = both if step <= 2 else head.grad.clone()
        twins[1].grad = both.T.contiguous() if step <= 2 else embed.grad.clone()
        for each in (optimizer, plain):
            each.step()
            each.zero_grad()
        for p, q in zip((head, embed), twins, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    assert not torch.equal(head, embed.T)


def test_the_norm_of_a_tied_pair_is_that_of_one_parameter():
    head, embed = pair(True)
    optimizer = MuonAdamW(groups_of(head, embed), ties=[Tie(head, embed, True)])
    head.grad, embed.grad = random(4, 9, seed=1), random(9, 4, seed=2)
    expected = (head.grad + embed.grad.T).norm()
    torch.testing.assert_close(optimizer.clip_grad_norm_(1.0), expected, check_dtype=False, rtol=1e-12, atol=0)
    before = head.detach().clone()
    optimizer.step()
    assert not torch.equal(head, before) and torch.equal(embed, head.T)


def test_several_followers_and_groups_that_wait():
    head, first = pair(False)
    second = nn.Parameter(head.detach().clone())
    ties = [Tie(head, first), Tie(head, second, until=3)]
    optimizer = MuonAdamW(groups_of(head, first, second, every=2), ties=ties)
    for step in range(6):
        for i, p in enumerate((head, first, second)):
            grad = random(4, 9, seed=10 * step + i)
            p.grad = grad if p.grad is None else p.grad + grad
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(head, first)
        assert torch.equal(head, second) == (step <= 4)


def test_a_loaded_state_knows_whether_the_pair_is_one():
    made = []
    for _ in range(2):
        head, embed = pair(True)
        optimizer = MuonAdamW(groups_of(head, embed), ties=[Tie(head, embed, True, until=1)])
        made.append((head, embed, optimizer))

    def train(side, first, last):
        for step in range(first, last):
            side[0].grad, side[1].grad = random(4, 9, seed=step), random(9, 4, seed=50 + step)
            side[2].step()
            side[2].zero_grad()

    straight, resumed = made
    train(straight, 0, 3)
    state = copy.deepcopy(straight[2].state_dict())
    resumed[2].load_state_dict(state)
    with torch.no_grad():
        for p, q in zip(resumed[:2], straight[:2], strict=True):
            p.copy_(q)
    for side in made:
        train(side, 3, 5)
    assert torch.equal(straight[0], resumed[0]) and torch.equal(straight[1], resumed[1])
    assert not torch.equal(resumed[0], resumed[1].T)


def test_ties_that_cannot_be_kept():
    head, embed = pair(True)
    matrix = nn.Parameter(random(4, 9))
    both = groups_of(head, embed)
    with pytest.raises(ValueError, match="kind adamw"):
        MuonAdamW([*groups_of(head), {"params": [embed], "kind": "muon"}], ties=[Tie(head, embed, True)])
    with pytest.raises(ValueError, match=r"shape \(9, 4\).* cannot follow one of \(4, 9\)"):
        MuonAdamW(both, ties=[Tie(head, embed)])
    with pytest.raises(ValueError, match="follows none"):
        MuonAdamW(both, ties=[Tie(head, embed, True), Tie(embed, head, True)])
    together = [{"params": [head, matrix], "kind": "adamw", "lr": 0.1}]
    with pytest.raises(ValueError, match="a group of its own"):
        MuonAdamW(together, ties=[Tie(head, matrix)])
    with pytest.raises(ValueError, match="need one `every`, got 1 and 2"):
        MuonAdamW([*groups_of(head), *groups_of(embed, every=2)], ties=[Tie(head, embed, True)])
    with pytest.raises(ValueError, match=r"updated at steps 1, 3, \.\.\., .* got until=4"):
        MuonAdamW(groups_of(head, embed, every=2), ties=[Tie(head, embed, True, until=4)])


def test_the_step_at_which_a_group_is_due():
    assert [due_at(step, 2) for step in range(4)] == [1, 1, 3, 3] and due_at(1010, 2) == 1011
    assert [due_at(step, 1) for step in range(3)] == [0, 1, 2] and due_at(4, 3) == 5


@pytest.mark.parametrize("spoiled", [2, 3])
def test_a_step_that_is_skipped_counts(spoiled):
    """What waited for its turn is lost, the turns stay, and a tie whose last step it is ends all the same."""
    head, embed = pair(True)
    twins = [nn.Parameter(p.detach().clone()) for p in (head, embed)]
    optimizer = MuonAdamW(groups_of(head, embed, every=2), ties=[Tie(head, embed, True, until=3)])
    plain = MuonAdamW(groups_of(*twins))
    sums = [torch.zeros(4, 9, dtype=F64), torch.zeros(9, 4, dtype=F64)]
    for step in range(8):
        gradients = random(4, 9, seed=step), random(9, 4, seed=50 + step)
        for p, own, total in zip((head, embed), gradients, sums, strict=True):
            p.grad = own.clone() if p.grad is None else p.grad + own
            total += own
        if spoiled == step:
            head.grad[0, 0] = torch.nan
        finite = bool(optimizer.clip_grad_norm_(1e9).isfinite())
        assert finite == (step % 2 == 0 or step != 3)  # a norm is that of the gradients whose turn it is
        if finite:
            optimizer.step()
        optimizer.zero_grad()
        assert [group["step"] for group in optimizer.param_groups] == 2 * [step + 1]
        if step % 2:
            both = sums[0] + sums[1].T
            twins[0].grad = both if step <= 3 else sums[0].clone()
            twins[1].grad = both.T.contiguous() if step <= 3 else sums[1].clone()
            if finite:
                plain.step()
            plain.zero_grad()
            for total in sums:
                total.zero_()
            assert head.grad is None and embed.grad is None
        for p, q in zip((head, embed), twins, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)

"""Losses against their formulas in float64, and the figures of the specification."""

import math

import pytest
import torch

from gpt_core.training import arithmetic, autoregressive, grokking

EOS, EQ, PAD = 12, 13, 11


def arithmetic_ids(text):
    """The ids of the arithmetic tokenizer: digits, `_` 11, `|` 12, `=` 13; any other sign is 20."""
    return torch.tensor([[int(c) if c.isdigit() else {"|": EOS, "=": EQ, "_": PAD}.get(c, 20) for c in text]])


def perfect(targets, vocab=32):
    """Logits that put all the mass on the target."""
    return 50.0 * torch.nn.functional.one_hot(targets.clamp(min=0), vocab).float()


def sample(vocab=11, masked=0.3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 6, vocab, generator=draw, dtype=torch.float64)
    targets = torch.randint(vocab, (4, 6), generator=draw)
    targets[torch.rand(4, 6, generator=draw) < masked] = -1
    return logits.requires_grad_(), targets


# --- autoregressive ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_autoregressive_is_its_formula_value_and_gradient(z_loss):
    logits, targets = sample()
    sums = autoregressive(z_loss)(logits, targets, accuracy=True)

    kept = targets != -1
    log_z = logits.exp().sum(-1).log()
    picked = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    loss = (log_z - picked)[kept].sum()
    objective = loss + z_loss * log_z[kept].square().sum()

    torch.testing.assert_close(sums.loss, loss.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(sums.objective, objective, rtol=1e-6, atol=0)
    assert sums.items == kept.sum() == autoregressive().count(targets)
    assert sums.correct == (logits.argmax(-1) == targets)[kept].sum()
    ours, theirs = (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (sums.objective, objective))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert (ours[~kept] == 0).all(), "an ignored position must not train the model"


def test_z_loss_is_trained_on_but_not_reported():
    logits, targets = sample()
    plain, regular = autoregressive()(logits, targets), autoregressive(0.1)(logits, targets)
    assert regular.loss == plain.loss and regular.objective > plain.objective
    log_z = logits.logsumexp(-1)[targets != -1]
    torch.testing.assert_close(regular.auxiliary, 0.1 * log_z.square().sum().detach(), rtol=1e-6, atol=0)
    assert plain.auxiliary == 0 and not regular.auxiliary.requires_grad
    assert not regular.loss.requires_grad


def test_accuracy_is_not_worked_out_unless_asked_for():
    logits, targets = sample(masked=0.0)
    for loss in (autoregressive(), grokking(), arithmetic(eq=1, eos=2, pad=3)):
        assert loss(logits, targets).correct == 0 <= loss(logits, targets, accuracy=True).correct


def test_a_negative_z_loss_is_refused():
    with pytest.raises(ValueError, match=r"z_loss is a weight.*got -1"):
        autoregressive(-1.0)


# --- grokking ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels_only", [False, True])
def test_grokking_looks_at_the_last_position_alone(labels_only):
    logits, targets = sample(masked=0.0)
    sums = grokking()(logits, targets[:, -1] if labels_only else targets, accuracy=True)
    last = targets[:, -1]
    expected = -logits[:, -1].log_softmax(-1)[range(4), last].sum()
    torch.testing.assert_close(sums.loss, expected.detach(), rtol=1e-6, atol=0)
    assert sums.correct == (logits[:, -1].argmax(-1) == last).sum() and sums.items == 4
    gradient = torch.autograd.grad(sums.objective, logits)[0]
    assert (gradient[:, :-1] == 0).all() and (gradient[:, -1] != 0).any()


def test_grokking_ignores_a_masked_label():
    logits, targets = sample(masked=0.0)
    targets[1, -1] = -1
    sums = grokking()(logits, targets, accuracy=True)
    kept = [0, 2, 3]
    expected = -logits[kept, -1].log_softmax(-1)[range(3), targets[kept, -1]].sum()
    torch.testing.assert_close(sums.loss, expected.detach(), rtol=1e-6, atol=0)
    assert grokking().count(targets) == 3 == sums.items


# --- arithmetic --------------------------------------------------------------------------------------------------

DOCUMENTS = "47*942=703674|5+6=11|___"  # two documents, then padding


def test_only_answer_digits_count():
    targets = arithmetic_ids(DOCUMENTS)
    mask = arithmetic().answer_mask(targets)[0]
    counted = "".join(c for c, m in zip(DOCUMENTS, mask.tolist(), strict=True) if m)
    assert counted == "703674" + "11"
    assert arithmetic().count(targets) == 8


def test_an_ignored_target_inside_an_answer_does_not_count():
    targets = arithmetic_ids(DOCUMENTS)
    targets[0, DOCUMENTS.index("=") + 1] = -1
    assert arithmetic().count(targets) == 7
    assert torch.isfinite(arithmetic()(torch.zeros(1, targets.shape[1], 32), targets).loss)


def test_uniform_logits_cost_ln_32():
    targets = arithmetic_ids(DOCUMENTS)
    loss = arithmetic()
    mean = loss(torch.zeros(1, targets.shape[1], 32), targets).loss / loss.count(targets)
    assert mean.item() == pytest.approx(math.log(32), abs=1e-6) == pytest.approx(3.4657, abs=5e-5)


def test_perfect_logits_make_every_document_right():
    targets = arithmetic_ids(DOCUMENTS)
    sums = arithmetic()(perfect(targets), targets, accuracy=True)
    assert (sums.correct, sums.items) == (2, 2) and sums.loss < 1e-12


def test_one_wrong_digit_makes_its_document_wrong_and_no_other():
    rows = torch.cat([arithmetic_ids(DOCUMENTS), arithmetic_ids("1+1=2|22*2=44|3+3=6|____")])
    logits = perfect(rows)
    logits[1, 11] = perfect(torch.tensor([9]))[0]  # the first 4 of 44
    sums = arithmetic()(logits, rows, accuracy=True)
    assert (sums.correct, sums.items) == (4, 5)
    logits[:, 0] = perfect(torch.tensor([9]))[0]  # a question: nobody asks
    assert arithmetic()(logits, rows, accuracy=True).correct == 4


def test_special_tokens_can_be_other_ids():
    shifted = arithmetic_ids(DOCUMENTS) + 3
    assert arithmetic(eq=EQ + 3, eos=EOS + 3, pad=PAD + 3).count(shifted) == 8

"""Bits per byte: the text that targets stand for, and nothing else."""

import math

import pytest
import torch

from gpt_core.models.speedrun.loss import speedrun_loss
from gpt_core.training import ModelWithLoss, autoregressive
from gpt_core.training.text_bytes import TextBytes


def bits_per_byte(text):
    nats, size = text.tolist()
    return nats / math.log(2) / size


def test_special_tokens_ignored_targets_and_unknown_ids_are_in_neither_sum(toys):
    text = TextBytes.of(toys.Spelled(4, 2, 0, 3))
    assert bits_per_byte(text.measure(torch.tensor([1.0, 2.0, 5.0, 3.0]), torch.arange(4))) == pytest.approx(
        0.96180, abs=5e-6
    )
    more = text.measure(torch.tensor([[1.0, 2.0, 5.0], [3.0, 7.0, 0.0]]), torch.tensor([[0, 1, 2], [3, 4, -1]]))
    assert more.tolist() == [6.0, 9.0]
    assert TextBytes.of(object()) is None


@pytest.mark.parametrize("make", [autoregressive, speedrun_loss])
def test_a_model_that_guesses(toys, make):
    """ln 50257 nats for every token of 4.5 bytes on average: 3.47045."""
    loss = make()
    loss.use_tokenizer(toys.Spelled(*[4, 5] * 25128, 0))
    sums = loss(torch.zeros(1, 6, 50257), torch.tensor([[0, 1, 2, 3, 50256, -1]]), accuracy=True)
    assert bits_per_byte(sums.text) == pytest.approx(3.47045, abs=5e-6) and sums.items == 5


def test_it_is_measured_in_evaluation_alone_and_adds_up_over_rows(toys):
    loss = autoregressive()
    loss.use_tokenizer(toys.Spelled(*range(toys.VOCAB)))
    model, batch = toys.gpt(), next(toys.Loader(seed=5))
    plain, by_rows = (ModelWithLoss(model, loss, fused=fused) for fused in (False, True))
    assert plain(batch.inputs, batch.targets).text is None
    whole, parts = (each.eval()(batch.inputs, batch.targets).text for each in (plain, by_rows))
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=0)
    nats = -model(batch.inputs).log_softmax(-1).gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    assert whole[0].item() == pytest.approx(nats[batch.targets > 0].sum().item(), rel=1e-6)
    assert whole[1] == batch.targets.clamp(min=0).sum()

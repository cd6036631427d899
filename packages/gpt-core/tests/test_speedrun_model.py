"""The speedrun's forward pass against a slow float64 one that was written from its description, record by record."""

import pytest
import torch
from speedrun_models import NEEDED_BY, RECORDS, make, tokens, without
from speedrun_reference import Reference

from gpt_core.models.speedrun import speedrun_loss

CU_SEQLENS = torch.tensor([0, 9, 9, 31, 47, 47], dtype=torch.int32)
DOCUMENTS = torch.tensor([0] * 9 + [1] * 22 + [2] * 16)
TRICKS_OF_68 = (
    "paired_heads",
    "yarn",
    "key_offset",
    "attention_gates",
    "value_gates",
    "bigram_embeddings",
    "smear",
    "skip",
    "x0_lambdas",
    "backout",
    "softcap",
    *NEEDED_BY,
)


@torch.no_grad()
def compare(model):
    got = model(tokens()[None], cu_seqlens=CU_SEQLENS)[0]
    expected = Reference(model, tokens(), DOCUMENTS).logits()
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)
    assert expected.std() > 0.05  # there is something to be wrong about


@pytest.mark.parametrize("record", RECORDS)
def test_each_record_is_its_description(record):
    compare(make(n_layer=11, **RECORDS[record]))


@pytest.mark.parametrize("record", [68, 74, 85])
def test_gradients_of_a_training_step(record):
    """Of the sum of losses of the next two tokens: what the model's own backward passes and chunks of logits give."""
    model, ids = make(**RECORDS[record]), tokens(48)
    parameters = dict(model.named_parameters())
    x = model.hidden(ids[None, :-1], cu_seqlens=CU_SEQLENS)
    loss = speedrun_loss([1, 0.5]).of_hidden(x, model.head_weight(), ids[None, 1:], softcap=model.config.logit_softcap)
    got = torch.autograd.grad(loss.objective, list(parameters.values()))
    losses = Reference(model, ids[:-1], DOCUMENTS).logits().log_softmax(-1)
    t = torch.arange(46)
    expected = torch.autograd.grad(
        -losses[torch.arange(47), ids[1:]].sum() - 0.5 * losses[t, ids[2:]].sum(), list(parameters.values())
    )
    for name, ours, theirs in zip(parameters, got, expected, strict=True):
        assert theirs.abs().max() > 1e-6, name
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


def test_after_windows_grew():
    model = make()
    model.set_windows(6, 19)
    compare(model)


@pytest.mark.parametrize("depth", [4, 8])
def test_other_depths(depth):
    compare(make(n_layer=depth))


@pytest.mark.parametrize("record", [77, 85])
def test_later_records_at_another_depth(record):
    compare(make(n_layer=6, **RECORDS[record]))


@pytest.mark.parametrize("switches", [*TRICKS_OF_68, "all"])
def test_each_trick_can_be_off(switches):
    names = TRICKS_OF_68 if switches == "all" else (switches,)
    compare(make(**without(*names)))


@pytest.mark.parametrize("switch", ["smear", "bigram_embeddings", "x0_lambdas", "attention_gates", "backout"])
def test_tricks_can_be_off_in_later_records(switch):
    compare(make(**RECORDS[80], **without(switch)))


@pytest.mark.parametrize("record", [68, 85])
def test_documents_kept_apart_on_request(record):
    compare(make(isolate_documents=True, **RECORDS[record]))

"""New tokens for a trained model: what it knew stays as it was, and an optimizer's state grows with it."""

import dataclasses

import pytest
import torch

from gpt_core.checkpoint import CheckpointError, save_model
from gpt_core.checkpoint.training_state import save_checkpoint
from gpt_core.config import Factory
from gpt_core.distributed import Distributed
from gpt_core.models import gpt
from gpt_core.models.convert import grow_vocabulary
from gpt_core.models.nanochat import nanochat
from gpt_core.training.initial_model import build_model
from gpt_core.training.warm_start import warm_start

KNOWN, NEW = 17, 20


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("sizes", "rows", "words"),
    [
        ({"vocab_size": 17}, 20, "3 rows more"),
        ({"vocab_size": 17, "vocab_multiple_of": 8}, 24, "3 rows that it had"),
        ({"vocab_size": 17, "vocab_multiple_of": 6}, 24, "1 rows that it had, 6 rows more"),
        ({"vocab_size": 32}, 32, "3 rows that it had"),
    ],
)
def test_known_tokens_keep_their_meaning(sizes, rows, words, tied):
    torch.manual_seed(0)
    old = gpt(context_length=8, n_layer=1, n_head=1, n_embd=64, weight_tying=tied, init_std=0.2, **sizes)
    grown, note = grow_vocabulary(old, NEW, KNOWN)
    assert f"3 new tokens, ids 17 to 19 ({words})" in note
    assert grown.config.vocab_size == max(NEW, old.config.vocab_size) and len(grown.embed.weight) == rows
    ids = torch.randint(KNOWN, (2, 8))
    assert torch.equal(grown(ids)[..., :KNOWN], old(ids)[..., :KNOWN])
    for table in {grown.embed.weight, grown.embed.weight if tied else grown.head.weight}:
        known, new = table[:KNOWN], table[KNOWN:NEW]
        assert (new - known.mean(0)).abs().max() < 0.05 * known.std(), "no new token stands out"
        assert len(new.unique(dim=0)) == 3, "nor are two of them the same"
    again, _ = grow_vocabulary(old, NEW, KNOWN)
    assert torch.equal(again.embed.weight, grown.embed.weight), "every rank must draw alike"


def test_value_embeddings_grow_and_the_model_stays_of_its_kind():
    """Also from a checkpoint: weights of another kind than a plain GPT start a run of their own kind."""
    old = nanochat(KNOWN, 8, n_layer=2, n_head=1, n_embd=32, vocab_multiple_of=1)
    grown, _ = grow_vocabulary(old, NEW, KNOWN)
    assert {len(p) for name, p in grown.named_parameters() if "embed" in name or "head." in name} == {NEW}
    assert len(grown.value_embeds) == len(old.value_embeds) > 0
    ids = torch.randint(KNOWN, (1, 8))
    assert torch.equal(grown(ids)[..., :KNOWN], old(ids)[..., :KNOWN])


def test_a_run_starts_from_weights_of_its_own_kind(tmp_path):
    old = nanochat(KNOWN, 8, n_layer=1, n_head=1, n_embd=32)
    path, kwargs = "gpt_core.models.nanochat.nanochat", old.config.to_dict()
    save_model(tmp_path, old, {"model": {"module": path, "module_kwargs": kwargs}, "step": 1})
    made = build_model(
        Factory(path, {}, nanochat), resume=None, weights=tmp_path, vocab_size=NEW, context_length=8, first_new_id=KNOWN
    )
    assert type(made.model) is type(old) and made.description["module"] == path
    assert nanochat(**made.description["module_kwargs"]).config == made.model.config
    with pytest.raises(ValueError, match=r"come as a model of gpt_core.models.gpt"):
        build_model(Factory("x.other", {}, nanochat), resume=None, weights=tmp_path, vocab_size=KNOWN, context_length=8)


def test_what_cannot_grow_is_said():
    model = gpt(vocab_size=KNOWN, context_length=8, n_layer=1, n_head=1, n_embd=8)
    with pytest.raises(ValueError, match="tokens from 18 on cannot be the new ones of 20: the model knows 17"):
        grow_vocabulary(model, NEW, 18)
    with pytest.raises(ValueError, match="only a GPT can"):
        grow_vocabulary(torch.nn.Linear(1, 1), NEW, KNOWN)


@pytest.fixture
def trained(toys, tmp_path):
    """A state after three steps, and its checkpoint."""
    state = toys.state(head_init_std=0.02, weight_tying=False)
    toys.train(state, 3)
    meta = {**state.meta(), "model": {"module": "x", "module_kwargs": {}}}
    saved = save_checkpoint(
        tmp_path, 3, model=state.model, optimizer=state.optimizer, data=state.data, meta=meta, distributed=Distributed()
    )
    return state, saved


def test_an_optimizer_starts_warm_with_rows_for_new_tokens(toys, trained):
    before, saved = trained
    model, _ = grow_vocabulary(before.model, NEW, KNOWN)
    optimizer = toys.adamw(model, lr=3e-4, betas=(0.8, 0.9))
    note = warm_start(saved, model=model, optimizer=optimizer, first_new=KNOWN, ranks=Distributed())
    assert str(saved) in note
    assert {(g["lr"], g["betas"]) for g in optimizer.param_groups} == {(3e-4, (0.8, 0.9))}, "rates are the new run's"
    olds = dict(before.model.named_parameters())
    for name, parameter in model.named_parameters():
        got, wanted = optimizer.state[parameter], before.optimizer.state[olds[name]]
        assert got["step"] == 3
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(got[key][: len(wanted[key])], wanted[key])
            if name in ("embed.weight", "head.weight"):
                new = wanted[key].mean(0) if key == "exp_avg_sq" else torch.zeros(16)
                assert got[key].shape == (NEW, 16) and torch.allclose(got[key][KNOWN:], new.expand(3, 16))
    state = dataclasses.replace(before, model=model, optimizer=optimizer, data=toys.Loader(), step=0)
    toys.train(state, 1)
    assert state.last.finite


def test_tokens_that_had_rows_begin_anew(toys, trained):
    """The model has learned never to say them, and their state says so too."""
    before, saved = trained
    optimizer = toys.adamw(before.model)
    warm_start(saved, model=before.model, optimizer=optimizer, first_new=15, ranks=Distributed())
    state = optimizer.state[before.model.head.weight]
    assert not state["exp_avg"][15:].any() and state["exp_avg"][:15].all()
    assert torch.allclose(state["exp_avg_sq"][16], state["exp_avg_sq"][:15].mean(0))


def test_a_state_that_does_not_fit_is_refused(toys, trained, tmp_path):
    before, saved = trained
    sgd = torch.optim.SGD(before.model.parameters(), lr=1.0, momentum=0.9)
    with pytest.raises(CheckpointError, match="AdamW"):
        warm_start(saved, model=before.model, optimizer=sgd, first_new=None, ranks=Distributed())
    (tmp_path / "bare").mkdir()
    for weights in (tmp_path / "bare", "gpt2", None):
        with pytest.raises(CheckpointError, match="has no optimizer state"):
            warm_start(weights, model=before.model, optimizer=sgd, first_new=None, ranks=Distributed())

"""The scoring engine equals one unbatched float64 forward per request, however requests are shared and batched."""

import logging

import numpy as np
import pytest
import tiny_networks as tiny
import torch

from gpt_eval.errors import EvaluationError
from gpt_eval.models import engine
from gpt_eval.models.engine import score
from gpt_eval.models.hf_network import HFNetwork
from gpt_eval.models.prefix_tree import plan

KINDS = {
    "gpt2": True,
    "llama": True,
    "mistral": True,
    "gemma2": True,
    "bloom": False,
    "granite": False,
    "gpt_neo": False,
}
"""Whether the tree path is used; the others fall back, and have to score the same."""


@pytest.fixture(scope="module")
def gpt2():
    return HFNetwork(tiny.causal_model("gpt2"), context=tiny.CONTEXT)


def run(network, asked, batch_tokens=200, **settings):
    return score(network, asked, max_length=tiny.CONTEXT, batch_tokens=batch_tokens, **settings)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("bloom", "granite"))) for kind in KINDS]
)
def test_equals_one_unbatched_float64_forward(kind):
    model = tiny.causal_model(kind)
    network = HFNetwork(model, context=tiny.CONTEXT)
    assert network.can_branch == KINDS[kind]
    asked = tiny.requests()
    scored = run(network, asked, logit_bytes=7 * 4 * tiny.VOCAB)
    double = model.double()
    expected = tiny.oracle(lambda ids: double(ids, use_cache=False).logits, asked)
    assert tiny.worst_difference(scored, expected) < 1e-4
    assert all(one.logprobs.dtype == np.float32 for one in scored)


def test_a_window_shorter_than_the_text_matters_here():
    """Otherwise the sliding-window cases above would prove nothing."""
    asked = tiny.requests()
    windowed = run(HFNetwork(tiny.causal_model("mistral"), context=tiny.CONTEXT), asked)
    model = tiny.causal_model("mistral")
    model.config.sliding_window = tiny.CONTEXT
    wide = run(HFNetwork(model, context=tiny.CONTEXT), asked)
    assert max(abs(a.sum - b.sum) for a, b in zip(windowed, wide, strict=True)) > 0.1


@pytest.mark.parametrize("batch_tokens", [1, 64, 10_000])
def test_the_batch_has_no_say(gpt2, batch_tokens):
    asked = tiny.requests()
    whole, other = run(gpt2, asked), run(gpt2, asked, batch_tokens)
    for a, b in zip(whole, other, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        np.testing.assert_array_equal(a.greedy, b.greedy)
    for request, b in list(zip(asked, other, strict=True))[::9]:
        np.testing.assert_allclose(run(gpt2, [request])[0].logprobs, b.logprobs, atol=1e-4)


def test_equal_choices_tie_exactly(gpt2):
    """Ties go to the first choice only if equal texts get equal numbers, to the last bit."""
    context, choice = [5, 6, 7, 8], [9, 10, 11]
    scored = run(gpt2, [(context, choice), (context, [12]), (context, list(choice)), (list(context), choice)])
    assert scored[0].sum == scored[2].sum == scored[3].sum != scored[1].sum


def test_without_a_cache_the_same_scores(gpt2, monkeypatch):
    asked = tiny.requests()
    shared = run(gpt2, asked)
    monkeypatch.setattr(gpt2, "can_branch", False)
    monkeypatch.setattr(gpt2, "append", None)  # may not be called
    for a, b in zip(shared, run(gpt2, asked), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_shared_beginnings_are_encoded_once(gpt2, monkeypatch):
    fed = []
    base = gpt2.model.base_model.forward
    monkeypatch.setattr(
        gpt2.model.base_model, "forward", lambda *a, **k: (fed.append(k["input_ids"].numel()), base(*a, **k))[1]
    )
    context = list(range(10, 60))
    run(gpt2, [(context, [i, i + 1, i + 2]) for i in range(100, 104)])
    assert sum(fed) == 50 + 4 * 2  # the last token of a choice is read, not fed
    fed.clear()
    run(gpt2, [(context, [i]) for i in range(100, 110)])
    assert sum(fed) == 50


def test_a_long_prompt_before_many_items_is_encoded_once(gpt2, monkeypatch):
    fed = []
    base = gpt2.model.base_model.forward
    monkeypatch.setattr(
        gpt2.model.base_model, "forward", lambda *a, **k: (fed.append(k["input_ids"].numel()), base(*a, **k))[1]
    )
    shots = [(7 * i) % tiny.VOCAB for i in range(90)]
    asked = [([*shots, i, 3 * i % tiny.VOCAB, 5], [8, 9]) for i in range(120)]
    scored = run(gpt2, asked, batch_tokens=512)
    assert sum(fed) < 120 * 94 / 5
    for i in (0, 60, 119):
        np.testing.assert_allclose(scored[i].logprobs, run(gpt2, asked[i : i + 1])[0].logprobs, atol=1e-4)


def test_the_plan_reads_every_token_once_and_its_own_past():
    asked = tiny.requests(seed=3)
    long = next(context for context, _ in asked if len(context) == 100)
    asked += [([*long, i, i + 1, i + 2], [i, i + 3, i + 4]) for i in range(100)]
    slots = []
    for tree_run in plan(asked, min_saving=100):
        for group in tree_run.groups:
            assert (group.stem[: tree_run.shared] == tree_run.groups[0].stem[: tree_run.shared]).all()
            assert tree_run.shared <= group.places.min()
            slots += group.slots.tolist()
            sight, n = group.sight(), len(group.stem)
            for place, slot in zip(group.places, group.slots, strict=True):
                past = group.stem[: place + 1] if place < n else [*group.stem, *group.branch[sight[place - n]]]
                request, nth = _token(asked, slot)
                context, continuation = asked[request]
                assert list(past) == [*context, *continuation[:nth]]
    assert sorted(slots) == list(range(sum(len(continuation) for _, continuation in asked)))
    assert any(tree_run.shared for tree_run in plan(asked, min_saving=100))


def _token(asked, slot):
    for request, (_, continuation) in enumerate(asked):
        if slot < len(continuation):
            return request, slot
        slot -= len(continuation)
    raise AssertionError


def test_a_constant_model_is_greedy_for_its_first_token_only(gpt2, monkeypatch):
    """With all logits equal the argmax is token 0; a test by `>=` would call every token the likeliest."""
    monkeypatch.setattr(gpt2, "head", lambda x: torch.zeros(len(x), tiny.VOCAB))
    zero, one = run(gpt2, [([3], [0]), ([3], [1])])
    assert zero.is_greedy and not one.is_greedy
    assert one.sum == pytest.approx(-np.log(tiny.VOCAB), abs=1e-6)


def test_memory_that_runs_out_halves_the_batch(gpt2, monkeypatch):
    asked = tiny.requests()
    expected = run(gpt2, asked)
    once, sizes = engine._score_batch, []

    def tight(network, P, shared, batch, logit_bytes):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("made up")
        return once(network, P, shared, batch, logit_bytes)

    monkeypatch.setattr(engine, "_score_batch", tight)
    for a, b in zip(expected, run(gpt2, asked, batch_tokens=4096), strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    assert max(sizes) > 3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (([], [1]), "empty context"),
        (([1], []), "empty continuation"),
        (([1] * 128, [2, 3]), r"128 \+ 2 - 1 tokens, the model takes 128"),
        (([1, 300], [2]), "ids 1..300, the model 0..299"),
        (([1], [-1]), "ids -1..1"),
    ],
)
def test_what_cannot_be_scored_is_refused(gpt2, request_, words):
    with pytest.raises(ValueError, match=words):
        run(gpt2, [([1], [2]), request_])


def test_as_long_as_the_model_allows(gpt2):
    assert run(gpt2, [([1] * 127, [2, 3])])[0].num_tokens == 2


def test_a_broken_model_gives_no_score(gpt2, monkeypatch):
    monkeypatch.setattr(gpt2, "head", lambda x: torch.full((len(x), tiny.VOCAB), torch.nan))
    with pytest.raises(EvaluationError, match="NaN"):
        run(gpt2, [([1], [2])])


def test_nothing_asked_nothing_done(gpt2):
    assert run(gpt2, []) == []


def test_probing_does_not_log(caplog):
    with caplog.at_level(logging.WARNING):
        HFNetwork(tiny.causal_model("gpt2"), context=tiny.CONTEXT)
    assert not caplog.records

"""Rows of "expression = answer": what they say is true, and always the same rows come."""

from fractions import Fraction

import pytest
import torch

from gpt_core.generate.engine import generate
from gpt_core.generate.sampling import Sampling
from gpt_dag import answer_loss, answers, gpt_dag
from gpt_dag.decimal_text import decimal_text
from gpt_dag.english import parse_english
from gpt_dag.expression import evaluate
from gpt_dag.tokens import WordTokenizer
from gpt_data import load_tokenizer

WORDS = WordTokenizer()


def stream(seed=1, context=64, rows=16, **kwargs):
    return answers(context, rows, seed=seed, **{"prefetch": 0, "held_out": 20, **kwargs})


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (Fraction(2, 3), 4, "0.6667"),
        (Fraction(-1, 4), 4, "-0.25"),
        (Fraction(0), 4, "0"),
        (Fraction(-1, 10**6), 4, "0"),
        (Fraction(25, 10), 0, "2"),
        (Fraction(10**12) + Fraction(1, 10**4), 4, "1000000000000.0001"),
        (Fraction(1200), 2, "1200"),
        (Fraction(-5, 100), 2, "-0.05"),
    ],
)
def test_a_value_is_written_one_way(value, decimals, text):
    assert decimal_text(value, decimals) == text
    with pytest.raises(ValueError, match="below 0"):
        decimal_text(value, -1)


def test_every_answer_is_true():
    """Read again by the reader of English, which the rows do not come from."""
    batch = next(stream(rows=8, max_ops=3, p_percent=0.2).train)
    for row in batch.inputs.tolist():
        question, _, answer = WORDS.decode(row).partition("=")
        answer = answer.replace("<|endoftext|>", "").strip().replace(" ", "")
        assert decimal_text(evaluate(parse_english(question.strip())), 4) == answer, WORDS.decode(row)


def test_targets_are_the_answer_and_its_end():
    batch = next(stream().train)
    assert batch.inputs.shape == batch.targets.shape and batch.inputs.shape[1] % 8 == 0
    for ids, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        first = ids.index(WORDS.equals_id)
        said = [t for t in targets if t >= 0]
        assert targets[:first] == [-1] * first and targets[first : first + len(said)] == said
        assert said[-1] == WORDS.eot_id and set(said[:-1]) <= set(WORDS.encode("0.123456789 -"))
    everything = next(stream(targets="all").train)
    assert torch.equal(everything.inputs, batch.inputs)
    assert torch.equal(
        everything.targets >= 0, torch.cat([everything.inputs[:, 1:], everything.inputs[:, :1] * 0], 1) > 0
    )


def test_batches_are_a_function_of_seed_rank_and_number():
    first, again, other = stream(), stream(), stream(seed=2)
    ranks = [answers(64, 16, rank, 2, 1, prefetch=0) for rank in (0, 1)]
    batches = [next(first.train).inputs for _ in range(3)]
    assert all(torch.equal(next(again.train).inputs, batch) for batch in batches)
    seen = [batches[0], batches[1], next(other.train).inputs, *(next(rank.train).inputs for rank in ranks)]
    texts = [tuple(map(tuple, ids.tolist())) for ids in seen]
    assert len(set(texts)) == len(seen)


def test_a_stream_goes_on_where_it_was():
    first = stream().train
    next(first)
    state, wanted = first.state_dict(), [next(first).inputs, next(first).inputs]
    resumed = stream().train
    resumed.load_state_dict(state)
    assert all(torch.equal(next(resumed).inputs, ids) for ids in wanted)
    with pytest.raises(ValueError, match="dataset"):
        stream(max_ops=2).train.load_state_dict(state)


def test_held_out_rows_are_the_same_for_every_seed_and_none_is_trained_on():
    one, two = stream(seed=1, max_ops=1, rows=7), stream(seed=2, max_ops=1, rows=7)
    assert one.val.batches_per_epoch == 3
    val = [next(one.val) for _ in range(3)]
    assert all(torch.equal(next(two.val).inputs, batch.inputs) for batch in val)
    answered = sum(int((batch.targets >= 0).any(1).sum()) for batch in val)
    assert answered == 20, "what fills up the last batch does not count"
    held_out = {WORDS.decode(row) for batch in val for row in batch.inputs.tolist()}
    assert held_out.isdisjoint(WORDS.decode(row) for row in next(stream(rows=200, max_ops=1).train).inputs.tolist())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"targets": "some"}, "'answer' or 'all'"),
        ({"held_out": 0}, "held_out >= 1"),
        ({"max_digits": 9}, "max_digits must be 1 to"),
        ({"context": 3, "min_ops": 4, "rows": 64}, "rows of 3 tokens are too short.*: of 64 examples 0 fit"),
    ],
)
def test_bad_settings_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        next(stream(**wrong).train)


def test_the_tokenizer_of_a_run_can_be_opened(tmp_path):
    WORDS.save(tmp_path)
    assert isinstance(load_tokenizer(tmp_path), WordTokenizer)
    description = tmp_path / "gpt_tokenizer.json"
    for kind, said in (("os.path.join", "cannot be understood"), ("gpt_dag.tokens.Nobody", "is not installed")):
        description.write_text(description.read_text().replace("gpt_dag.tokens.WordTokenizer", kind))
        with pytest.raises(ValueError, match=said):
            load_tokenizer(tmp_path)
        WORDS.save(tmp_path)


def test_right_at_every_target_is_right_when_generated(descent):
    """Exact match is counted without generating; here both are."""
    torch.manual_seed(0)
    model = gpt_dag(WORDS.vocab_size, 32, dag_depth=0, n_layer=1, n_head=2, n_embd=32, preset="hybrid")
    law = {"max_ops": 0, "max_digits": 1, "max_decimals": 0, "styles": ("symbols",), "p_negative": 0.0}
    splits, loss = stream(context=32, rows=16, **law), answer_loss()
    optimizer = descent(model.parameters(), 3e-3)
    held = next(splits.train)
    for _ in range(100):
        batch = next(splits.train)
        (loss(model(batch.inputs), batch.targets).objective / loss.count(batch.targets)).backward()
        optimizer.step()
        optimizer.zero_grad()
        sums = loss(model(held.inputs), held.targets, accuracy=True)
        if 0 < int(sums.correct) < int(sums.items):
            break  # else it would show nothing
    right = 0
    for ids, targets in zip(held.inputs.tolist(), held.targets.tolist(), strict=True):
        prompt = ids[: ids.index(WORDS.equals_id) + 1]
        said = generate(model, [prompt], 12, stop_ids=[WORDS.eot_id], seed=0, sampling=Sampling(temperature=0.0))[0].ids
        right += list(said) == [t for t in targets if t >= 0][:-1]
    assert int(sums.items) == 16 and int(sums.correct) == right and 0 < right < 16

"""`gpt_dag.expressions` as gpt-core's training loop sees it."""

import itertools
import json

import pytest
import torch

from gpt_dag import WordTokenizer, expressions
from gpt_dag.tags import ROLE
from gpt_data import Batch

SMALL = {"max_ops": 2, "held_out": 10, "prefetch": 0}


def take(loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


def test_batches_are_ids_and_six_tags_trimmed_to_the_longest():
    splits = expressions(64, 16, **SMALL)
    for batch in take(splits.train, 4):
        T = batch.inputs.shape[1]
        assert batch.targets.shape == (16, T, 6) and batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert T % 8 == 0 and T - 8 < int((batch.inputs != 0).sum(1).max()) <= T
    untrimmed = expressions(64, 16, trim=False, **SMALL)
    assert next(untrimmed.train).inputs.shape == (16, 64)
    assert splits.train.vocab_size == splits.dataset.load_tokenizer().vocab_size == WordTokenizer.vocab_size


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 64 examples: the stream does not depend on them."""
    monkeypatch.setattr("gpt_dag.stream.loader.BLOCK", 64)


def test_equal_settings_give_equal_batches_and_other_seeds_others():
    first, again, other = (next(expressions(64, 16, seed=seed, **SMALL).train) for seed in (1, 1, 2))
    assert equal(first, again) and not equal(first, other)


def test_a_batch_of_eight_thousand():
    batch = next(expressions(128, 8000, min_ops=1, max_ops=2, styles=["symbols"], held_out=1, prefetch=0).train)
    assert batch.inputs.shape[0] == 8000 and len(batch.inputs.unique(dim=0)) > 7900


def test_ranks_share_one_stream():
    alone = take(expressions(64, 8, trim=False, **SMALL).train, 4)
    ranks = [take(expressions(64, 4, rank, 2, trim=False, **SMALL).train, 4) for rank in range(2)]
    turns = [batch.inputs for pair in zip(*ranks, strict=True) for batch in pair]
    assert torch.equal(torch.cat(turns), torch.cat([batch.inputs for batch in alone]))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_stream_continues_where_its_state_says(prefetch):
    settings = {**SMALL, "prefetch": prefetch}
    first = expressions(32, 24, **settings).train  # two batches per block
    take(first, 3)
    state = json.loads(json.dumps(first.state_dict()))
    expected = next(first)
    second = expressions(32, 24, **settings).train
    second.load_state_dict(state)
    assert equal(next(second), expected)


def test_a_state_of_another_law_is_refused():
    state = expressions(64, 4, **SMALL).train.state_dict()
    with pytest.raises(ValueError, match="dataset"):
        expressions(64, 4, p_zero=0.5, **SMALL).train.load_state_dict(state)


def test_validation_is_the_same_for_every_seed_and_counts_every_example_once():
    first, other = (expressions(64, 4, seed=seed, **SMALL).val for seed in (1, 2))
    assert first.batches_per_epoch == 3
    epoch, again = take(first, 3), take(first, 3)
    assert all(map(equal, epoch, again)) and all(map(equal, epoch, take(other, 3)))
    counted = torch.cat([(batch.targets[..., ROLE] >= 0).any(1) for batch in epoch])
    assert counted.tolist() == [True] * 10 + [False] * 2
    texts = {WordTokenizer().decode(row) for batch in epoch for row in batch.inputs.tolist()}
    assert len(texts) == 10
    ranks = [take(expressions(64, 4, rank, 2, **SMALL).val, 2) for rank in range(2)]
    assert sum(int((b.targets[..., ROLE] >= 0).any(1).sum()) for r in ranks for b in r) == 10


def test_expressions_of_a_file_are_left_out(tmp_path):
    file = tmp_path / "held_out.jsonl"
    lines = [json.dumps({"symbolic": str(n), "english": "-"}) for n in range(9)]
    file.write_text("\n".join(lines) + "\n")
    law = {"max_ops": 0, "max_digits": 1, "max_decimals": 0, "p_percent": 0.0, "p_negative": 0.0, "p_redundant": 0.0}
    batch = next(expressions(8, 20, exclude=str(file), styles=["symbols"], held_out=1, prefetch=0, **law).train)
    assert set(batch.inputs[:, 0].tolist()) == set(WordTokenizer().encode("9"))
    assert batch.inputs[:, 1:].eq(0).all()


def test_the_digest_differs_with_the_law():
    names = [
        expressions(64, 4, **SMALL, **more).dataset.digest for more in ({}, {"p_zero": 0.1}, {"styles": ["spelled"]})
    ]
    assert len(set(names)) == 3
    assert expressions(64, 4, **SMALL).dataset.digest == names[0]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"held_out": 0}, "held_out is 0"),
        ({"styles": ["loud"]}, "styles are"),
        ({"device_batch_size": 0}, "at least 1"),
        ({"prefetch": -1}, "prefetch is -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        expressions(**{"context_length": 64, "device_batch_size": 4, **settings})

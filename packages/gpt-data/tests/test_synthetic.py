"""Grokking and arithmetic data: exact rows, exact splits, every row once per epoch, the same stream after a resume."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import load_tokenizer
from gpt_data.loaders.arithmetic import arithmetic, pack, products
from gpt_data.loaders.grokking import equations, grokking
from gpt_data.loaders.synthetic import RowsInOrder, ShuffledRows, SyntheticCorpus
from gpt_data.tokenizers import ArithmeticTokenizer, GrokkingTokenizer
from gpt_data.tokenizers.grokking import OPERATIONS

# --- equations ---------------------------------------------------------------------------------------------------


def test_rows_of_division():
    """spec/core §9.12."""
    rows = equations(97, "x/y")
    assert rows.shape == (9312, 6) and rows[0].tolist() == [0, 11, 5, 12, 1, 11]
    assert equations(223, "x/y").shape == (49506, 6)
    x, y, z = (rows[:, column].astype(int) - 11 for column in (1, 3, 5))
    assert ((y * z - x) % 97 == 0).all() and y.min() == 1 and max(x.max(), y.max(), z.max()) == 96
    assert len(np.unique(rows[:, [1, 3]], axis=0)) == 9312


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_what_it_is_called(operation):
    tokenizer = GrokkingTokenizer(7)
    rows = equations(7, operation)
    divides = "/" in operation
    assert len(rows) == 7 * (7 - divides) and len(np.unique(rows[:, [1, 3]], axis=0)) == len(rows)
    for row in rows.tolist():
        _, x, sign, y, equals, z = tokenizer.decode(row).split()
        assert (sign, equals, row[0]) == (operation, "=", 0)
        x, y, z = int(x), int(y), int(z)
        if operation == "x/y":
            assert z * y % 7 == x
        elif divides:
            assert (z * y % 7 == x) if y % 2 else (z == (x - y) % 7)
        else:
            python = operation.replace("^", "**").replace("xy", "x*y")
            assert z == eval(python, {"x": x, "y": y}) % 7


def test_the_equations_are_divided_by_fractions():
    halves = grokking(5, 8)
    assert [len(halves.dataset.tables[split]) for split in ("train", "val")] == [4656, 4656] and halves.test is None
    assert len(grokking(5, 8, prime=223).dataset.tables["train"]) == 24753
    thirds = grokking(5, 8, training_fraction=0.3, val_fraction=0.2).dataset.tables
    assert [len(thirds[split]) for split in ("train", "val", "test")] == [2793, 1862, 4657]
    together = np.concatenate(list(thirds.values()))
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, equations(97, "x/y").tolist()))


def test_which_equations_are_held_out_does_not_depend_on_the_seed():
    assert grokking(5, 8, seed=1).dataset.digest == grokking(5, 8, seed=2).dataset.digest
    assert grokking(5, 8, split_seed=1).dataset.digest != grokking(5, 8).dataset.digest


def test_a_batch_asks_for_the_answer_only():
    splits = grokking(5, 64, prefetch=0)
    batch = next(splits.train)
    assert batch.inputs.shape == batch.targets.shape == (64, 5)
    assert (batch.targets[:, :-1] == -1).all() and (batch.targets[:, -1] >= 11).all()
    assert (batch.inputs[:, 0] == 0).all() and (batch.inputs[:, 4] == 1).all()
    everything = next(grokking(5, 64, loss_on="all", prefetch=0).train)
    assert (everything.targets[:, :-1] == everything.inputs[:, 1:]).all()
    assert (everything.targets[:, -1] == batch.targets[:, -1]).all()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"context_length": 64}, "context_length is 64, but a question of grokking has 5 tokens. Set training.context"),
        ({"prime": 91}, "prime is 91, expected a prime number"),
        ({"prime": 65537}, "prime is 65537, expected one below 65525"),
        ({"operation": "x*y"}, r"operation is 'x\*y', expected one of .*x\^2\+y\^2"),
        ({"training_fraction": 0.0}, "training_fraction 0.0 and val_fraction None of 9312 equations leave one"),
        ({"training_fraction": 1.0}, "a sum of at most 1"),
        ({"training_fraction": 0.9, "val_fraction": 0.2}, "a sum of at most 1"),
        ({"loss_on": "answer"}, "loss_on is 'answer', expected 'mask' or 'all'"),
    ],
)
def test_what_grokking_cannot_do_is_explained(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        grokking(**{"context_length": 5, "device_batch_size": 8, **arguments})


# --- products ----------------------------------------------------------------------------------------------------


def test_one_digit_makes_twenty_rows_of_32():
    """spec/core §9.13."""
    texts, complete = products(1, 5000, seed=0)
    rows = pack(texts, 32)
    assert complete and len(texts) == 81 and len(rows) == 20 and {len(row) for row in rows} == {32}
    assert rows[0] == "1*1=1|1*2=2|1*3=3|1*4=4|1*5=5|__"
    assert (
        "".join(row.rstrip("_") for row in rows)
        == "".join(texts)
        == "".join(f"{a}*{b}={a * b}|" for a in range(1, 10) for b in range(1, 10))
    )


@given(lengths=st.lists(st.integers(1, 9), max_size=30), length=st.integers(9, 40))
def test_packing_is_greedy_and_splits_nothing(lengths, length):
    texts = ["x" * (n - 1) + "|" for n in lengths]
    rows = pack(texts, length)
    assert all(len(row) == length for row in rows) and "".join(row.rstrip("_") for row in rows) == "".join(texts)
    for row, following in itertools.pairwise(rows):
        assert row.rstrip("_").endswith("|") and len(row.rstrip("_")) + following.index("|") + 1 > length


@pytest.mark.parametrize(("digits", "samples"), [(2, 5000), (2, 100), (3, 5000), (9, 300)])
def test_drawn_products_are_right_and_different(digits, samples):
    texts, complete = products(digits, samples, seed=3)
    assert not complete and len(set(texts)) == len(texts) == samples
    for text in texts:
        x, y, z = (int(number) for number in text.rstrip("|").replace("*", "=").split("="))
        assert x * y == z and len(str(x)) == len(str(y)) == digits
    assert texts == products(digits, samples, seed=3)[0] != products(digits, samples, seed=4)[0]


def test_complete_tables_are_for_training_and_of_others_every_second_row_is_held_out():
    tables = arithmetic(32, 4, max_digits=2, max_samples=1000).dataset.tables
    tokenizer = ArithmeticTokenizer()
    train, val = ([tokenizer.decode(row[:-1].tolist()) for row in tables[split]] for split in ("train", "val"))
    drawn = pack(products(2, 1000, seed=0)[0], 32)
    assert train == pack(products(1, 1000, seed=0)[0], 32) + drawn[::2] and val == drawn[1::2]
    assert not {text for row in train for text in row.split("|")[:-1]} & {
        text for row in val for text in row.split("|")[:-1]
    }
    assert (tables["train"][:, -1] == 12).all() and tables["train"].shape[1] == 33


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"max_digits": 1}, "none of the products of 1 to 1 digits are held out: with max_samples = 5000"),
        ({"min_digits": 3, "max_digits": 2}, "min_digits and max_digits are 3 and 2, expected 1 <= "),
        ({"max_digits": 10}, "max_digits <= 9"),
        ({"context_length": 14}, "digits takes up to 15 symbols. Set training.context_length to at least that"),
        ({"max_samples": 0}, "max_samples is 0, expected at least 1"),
    ],
)
def test_what_arithmetic_cannot_do_is_explained(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        arithmetic(**{"context_length": 32, "device_batch_size": 8, **arguments})


# --- loaders -----------------------------------------------------------------------------------------------------


def corpus(rows, seed=0):
    """Row i begins with id i % 90, so that rows can be counted."""
    table = np.zeros((rows, 4), np.uint8)
    table[:, 0], table[:, 1] = np.arange(rows) % 90, np.arange(rows) // 90
    return SyntheticCorpus("made", GrokkingTokenizer(97), {"train": table, "val": table})


def handed_out(loaders, batches):
    """Numbers of the rows that all ranks together get, in order; -1 for one that does not count."""
    numbers = []
    for _ in range(batches):
        for loader in loaders:
            ids, mask = loader.next_rows()
            counted = np.ones(len(ids), bool) if mask is None else mask.any(axis=1)
            numbers += np.where(counted, ids[:, 0] + 90 * ids[:, 1].astype(int), -1).tolist()
    return numbers


def ranks(kind, data, split, batch, world, **options):
    return [kind(data, split, 3, batch, rank, world, **options) for rank in range(world)]


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 200), batch=st.integers(1, 9), world=st.integers(1, 8), seed=st.integers(0, 3))
def test_every_row_once_per_epoch(rows, batch, world, seed):
    loaders = ranks(ShuffledRows, corpus(rows), "train", batch, world, seed=seed)
    batches = -(-3 * rows // (batch * world))
    numbers = handed_out(loaders, batches)
    for epoch in range(3):
        assert sorted(numbers[epoch * rows : (epoch + 1) * rows]) == list(range(rows))
    one = ranks(ShuffledRows, corpus(rows), "train", batch * world, 1, seed=seed)
    assert numbers == handed_out(one, batches), "the same rows however the batch is divided"
    if rows > 20:
        assert numbers[:rows] != numbers[rows : 2 * rows] != list(range(rows))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 200), batch=st.integers(1, 9), world=st.integers(1, 8))
def test_evaluation_counts_every_row_once(rows, batch, world):
    loaders = ranks(RowsInOrder, corpus(rows), "val", batch, world)
    for _ in range(2):
        numbers = handed_out(loaders, loaders[0].batches_per_epoch)
        assert [n for n in numbers if n >= 0] == list(range(rows))
        assert len(numbers) < rows + batch * world


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kind=st.sampled_from([ShuffledRows, RowsInOrder]))
def test_a_resumed_stream_is_the_same(data, kind):
    rows, batch, world = data.draw(st.integers(1, 100)), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    whole = ranks(kind, corpus(rows), "train", batch, world)
    before = data.draw(st.integers(0, 20))
    handed_out(whole, before)
    states = [json.loads(json.dumps(loader.state_dict())) for loader in whole]
    assert all(state == states[0] for state in states)
    resumed = ranks(kind, corpus(rows), "train", batch, world)
    for loader in resumed:
        loader.load_state_dict(states[0])
    assert handed_out(resumed, 5) == handed_out(whole, 5)


def test_training_goes_on_with_another_number_of_ranks():
    data = corpus(50)
    expected = handed_out(ranks(ShuffledRows, data, "train", 6, 4), 10)
    first = ranks(ShuffledRows, data, "train", 6, 4)
    numbers = handed_out(first, 5)
    then = ranks(ShuffledRows, data, "train", 8, 3)
    for loader in then:
        loader.load_state_dict(first[0].state_dict())
    assert numbers + handed_out(then, 5) == expected
    with pytest.raises(ValueError, match=r"after 120 rows, which 7 ranks with batches of 1 do not reach\. Resume with"):
        ranks(ShuffledRows, data, "train", 1, 7)[0].load_state_dict(first[0].state_dict())


def test_a_state_of_another_stream_is_refused():
    data = corpus(50)
    state = ShuffledRows(data, "train", 3, 2, 0, 1, seed=5).state_dict()
    with pytest.raises(ValueError, match="this loader state has seed = 5, the loader has 6"):
        ShuffledRows(data, "train", 3, 2, 0, 1, seed=6).load_state_dict(state)
    with pytest.raises(ValueError, match="this loader state has dataset = "):
        ShuffledRows(corpus(51), "train", 3, 2, 0, 1, seed=5).load_state_dict(state)
    with pytest.raises(ValueError, match="has rows = None, expected how many"):
        ShuffledRows(data, "train", 3, 2, 0, 1, seed=5).load_state_dict({**state, "rows": None})
    held_out = RowsInOrder(data, "val", 3, 2, 0, 2).state_dict()
    with pytest.raises(ValueError, match="this loader state has rows_per_batch = 4, the loader has 3"):
        RowsInOrder(data, "val", 3, 3, 0, 1).load_state_dict(held_out)


# --- the factories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda **k: grokking(5, 16, **k), lambda **k: arithmetic(32, 16, **k)])
def test_the_data_stands_for_a_dataset(make, tmp_path):
    splits, again = make(), make(rank=1, world_size=2, prefetch=0)
    data = splits.dataset
    assert data.path is None and data.load_tokenizer().token_bytes() is None and data.digest == again.dataset.digest
    data.load_tokenizer().save(tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == data.vocab_size == splits.train.vocab_size
    ahead, plain = next(splits.train), next(make(prefetch=0).train)
    assert (ahead.inputs == plain.inputs).all() and (ahead.targets == plain.targets).all()
    assert (next(again.train).inputs != plain.inputs).any(), "another rank has other rows"
    assert next(splits.val).targets.max() < data.vocab_size

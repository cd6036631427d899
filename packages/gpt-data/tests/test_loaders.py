"""Loaders hand out the right text, to the right rank, and continue exactly where they stopped."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import Batch, DatasetError, random_windows, sequential, shuffled_windows
from gpt_data.loaders.base import draw

FACTORIES = {
    "random": random_windows,
    "without_replacement": shuffled_windows,
    "sequential": sequential,
    "shuffled": lambda *args, **kwargs: sequential(*args, shuffle=True, **kwargs),
}


@pytest.fixture(params=FACTORIES)
def factory(request):
    return FACTORIES[request.param]


@pytest.fixture
def corpus(make_dataset):
    return make_dataset(train=range(120), val=range(70), shards=2)


def take(loader, count):
    return list(itertools.islice(loader, count))


def starts(batch):
    """Position of every row in a corpus whose ids are its positions."""
    return batch.inputs[:, 0].tolist()


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)


# --- every loader ------------------------------------------------------------------------------------------------


def test_a_batch_is_text_and_the_text_one_token_on(make_dataset, factory):
    made = make_dataset(train=range(200), val=range(60), shards=3)
    splits = factory(made.path, context_length=8, device_batch_size=3)
    for loader, size in ((splits.train, 200), (splits.val, 60)):
        for batch in take(loader, min(20, loader.batches_per_epoch - 1)):
            assert isinstance(batch, Batch) and batch.cu_seqlens is None
            assert batch.inputs.shape == batch.targets.shape == (3, 8)
            assert batch.inputs.dtype == batch.targets.dtype == torch.int64
            assert batch.inputs.is_contiguous() and batch.targets.is_contiguous()
            assert torch.equal((batch.inputs + 1) % size, batch.targets)
            assert torch.equal((batch.inputs[:, :-1] + 1) % size, batch.inputs[:, 1:])
    assert splits.test is None and splits.dataset == made


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the corpus is only read
@given(
    done=st.integers(0, 40), ahead=st.integers(1, 6), rank=st.integers(0, 2), name=st.sampled_from(sorted(FACTORIES))
)
def test_a_state_continues_the_identical_stream(corpus, done, ahead, rank, name):
    def build():
        return FACTORIES[name](corpus.path, 5, 2, rank=rank, world_size=3, seed=7)

    for split in ("train", "val"):
        straight = getattr(build(), split)
        take(straight, done)
        state = json.loads(json.dumps(straight.state_dict()))
        resumed = getattr(build(), split)
        take(resumed, 3)
        resumed.load_state_dict(state)
        assert_equal(take(resumed, ahead), take(straight, ahead))
        assert resumed.state_dict() == straight.state_dict()


def test_the_initial_state_replays_evaluation(make_dataset, factory):
    val = factory(make_dataset().path, context_length=4, device_batch_size=2).val
    initial = val.state_dict()
    first = take(val, 5)
    val.load_state_dict(initial)
    assert_equal(take(val, 5), first)


def test_two_loaders_agree_and_seeds_differ(make_dataset, factory):
    path = make_dataset(train=range(250)).path
    first, again = (take(factory(path, 8, 2, seed=1).train, 6) for _ in range(2))
    assert_equal(first, again)
    other = take(factory(path, 8, 2, seed=2).train, 6)
    if factory is not sequential:
        assert any(not torch.equal(a.inputs, b.inputs) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("change", [{"context_length": 9}, {"seed": 2}, {"device_batch_size": 3}, {"world_size": 4}])
def test_a_state_of_another_stream_is_refused(make_dataset, factory, change):
    path = make_dataset().path
    same = {"context_length": 8, "device_batch_size": 2, "rank": 0, "world_size": 2, "seed": 1}
    loader = factory(path, **same).train
    take(loader, 1)
    (name,) = change
    divided = factory in (random_windows, shuffled_windows) and name in ("device_batch_size", "world_size")
    message = "is after 4 rows, which" if divided else f"state has {name} = .*the loader has .*Resume with the same"
    with pytest.raises(ValueError, match=message):
        factory(path, **(same | change)).train.load_state_dict(loader.state_dict())


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.sampled_from([1, 2, 4]), after=st.sampled_from([1, 2, 3, 4, 6]), steps=st.integers(0, 5))
def test_random_windows_resume_on_another_number_of_ranks(corpus, before, after, steps):
    """A global batch of 12 rows, whoever takes them: the rows of every step are those of the uninterrupted run."""

    def run(world_size, state, steps):
        loaders = [
            random_windows(corpus.path, 5, 12 // world_size, rank, world_size).train for rank in range(world_size)
        ]
        for loader in loaders if state else ():
            loader.load_state_dict(state)
        rows = [torch.cat([next(loader).inputs for loader in loaders]) for _ in range(steps)]
        return rows, loaders[0].state_dict()

    _, state = run(before, None, steps)
    straight, _ = run(1, None, steps + 2)
    resumed, _ = run(after, state, 2)
    assert all(torch.equal(a, b) for a, b in zip(resumed, straight[steps:], strict=True))


def test_a_state_of_another_dataset_split_or_version_is_refused(make_dataset, factory):
    splits = factory(make_dataset().path, 8, 2)
    state = splits.train.state_dict()
    with pytest.raises(ValueError, match=r"state has (split|loader) = .*the loader has"):
        splits.val.load_state_dict(state)
    with pytest.raises(ValueError, match="version = 99"):
        splits.train.load_state_dict(state | {"version": 99})
    with pytest.raises(ValueError, match="rows = -1, expected how many"):
        splits.train.load_state_dict(state | {"rows": -1})
    with pytest.raises(ValueError, match="dataset = "):
        factory(make_dataset(train=range(1, 101)).path, 8, 2).train.load_state_dict(state)


def test_states_are_equal_on_all_ranks(make_dataset, factory):
    path = make_dataset().path
    loaders = [factory(path, 8, 2, rank=rank, world_size=2).train for rank in range(2)]
    for loader in loaders:
        take(loader, 3)
    assert loaders[0].state_dict() == loaders[1].state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context_length": 0}, "must be at least 1, got 0 and 2"),
        ({"device_batch_size": 0}, "must be at least 1, got 8 and 0"),
        ({"rank": 2}, "got rank 2 of 2"),
        ({"rank": -1}, "got rank -1 of 2"),
    ],
)
def test_impossible_arguments_are_explained(make_dataset, factory, change, message):
    given_ = {"context_length": 8, "device_batch_size": 2, "rank": 0, "world_size": 2} | change
    with pytest.raises(ValueError, match=message):
        factory(make_dataset().path, **given_)


def test_a_split_shorter_than_the_context_is_explained(make_dataset, factory):
    path = make_dataset(val=range(8)).path
    with pytest.raises(DatasetError, match="split 'val' has 8 tokens, a context of 8 needs at least one more"):
        factory(path, context_length=8, device_batch_size=2)
    assert next(factory(path, context_length=7, device_batch_size=1).val).inputs.tolist() == [list(range(7))]


# --- random windows ----------------------------------------------------------------------------------------------


def test_draws_are_the_same_on_every_machine():
    """Golden numbers: Philox words are promised not to change between numpy versions."""
    golden = [985, 347, 78, 213, 902, 331]
    assert draw(seed=1337, first=0, count=6, limit=1000) == golden
    assert [draw(1337, first, 2, 1000) for first in range(5)] == [golden[k : k + 2] for k in range(5)]
    assert draw(1337, 10**12, 2, 10**15, stream=1) != draw(1337, 10**12, 2, 10**15)
    assert draw(-1, 0, 2, 7) == draw(2**64 - 1, 0, 2, 7)


def test_windows_are_uniform_over_every_start(make_dataset):
    train = random_windows(make_dataset(train=range(24)).path, context_length=8, device_batch_size=1000).train
    counts = np.bincount(starts(next(train)), minlength=16)
    assert len(counts) == 24 - 8  # the last target may be the last token
    assert counts.min() > 1000 / 16 / 2 and counts.max() < 1000 / 16 * 2


def test_ranks_and_steps_draw_independently(make_dataset):
    path = make_dataset(train=range(250)).path
    loaders = [random_windows(path, 2, 100, rank=rank, world_size=2).train for rank in range(2)]
    drawn = [tuple(starts(batch)) for loader in loaders for batch in take(loader, 3)]
    assert len(set(drawn)) == 6
    for a, b in itertools.combinations(drawn, 2):
        assert np.mean(np.equal(a, b)) < 0.1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the corpus is only read
@given(
    world_size=st.integers(1, 8),
    rows=st.integers(1, 5),
    context=st.integers(1, 12),
    name=st.sampled_from(["random", "without_replacement"]),
)
def test_an_evaluation_counts_every_target_once(corpus, world_size, rows, context, name):
    """Also the next one, if the loaders go on; what fills up the last batch does not count. 70 tokens are held out."""
    loaders = [FACTORIES[name](corpus.path, context, rows, rank, world_size).val for rank in range(world_size)]
    windows = 69 // context
    assert {loader.batches_per_epoch for loader in loaders} == {-(-windows // (world_size * rows))}
    evaluations = []
    for _ in range(2):
        batches = [take(loader, loader.batches_per_epoch) for loader in loaders]
        targets = torch.cat([batch.targets.flatten() for own in batches for batch in own])
        assert sorted(targets[targets >= 0].tolist()) == list(range(1, windows * context + 1))
        evaluations.append(batches)
    for first, second in zip(*evaluations, strict=True):
        assert_equal(first, second)


def test_surplus_windows_and_the_own_mask_combine(make_documents):
    """Three windows on two ranks; of every window the even ids count, but of the fourth none."""
    ids = np.arange(13)
    made = make_documents({"train": [ids], "val": [ids]}, at=None, masks={"train": [ids % 2], "val": [(ids + 1) % 2]})
    loaders = [random_windows(made.path, 4, 1, rank, 2).val for rank in range(2)]
    targets = torch.cat([batch.targets for loader in loaders for batch in take(loader, 2)])
    assert sorted(targets[targets >= 0].tolist()) == [2, 4, 6, 8, 10, 12]
    assert (targets >= 0).sum(1).tolist() == [2, 2, 2, 0]  # the second rank's second


def test_an_evaluation_goes_on_at_the_same_global_batch_only(make_dataset):
    path = make_dataset(val=range(70)).path
    val = random_windows(path, 5, 4).val
    straight = take(val, 6)
    val.load_state_dict(random_windows(path, 5, 2, 1, 2).val.state_dict())
    assert_equal(take(val, 6), straight)
    with pytest.raises(ValueError, match="rows_per_batch = 4, the loader has 2"):
        random_windows(path, 5, 2).val.load_state_dict(val.state_dict())


def test_evaluation_sees_the_same_text_at_any_number_of_ranks(make_dataset):
    path = make_dataset(val=range(250)).path

    def seen(world_size, batch_size, steps):
        loaders = [random_windows(path, 4, batch_size, rank, world_size).val for rank in range(world_size)]
        return sorted(start for loader in loaders for batch in take(loader, steps) for start in starts(batch))

    assert seen(1, 8, 3) == seen(2, 4, 3) == seen(4, 2, 3) == seen(4, 1, 6)


def test_the_first_evaluation_batches_are_spread_over_the_split(make_dataset):
    val = random_windows(make_dataset(val=range(4 * 60 + 1)).path, context_length=4, device_batch_size=10).val
    first = starts(next(val))
    assert first != sorted(first) and max(first) - min(first) > 120


# --- sequential runs ---------------------------------------------------------------------------------------------


def test_nanugpt_numbers(make_dataset):
    """spec/core §9.14: arange(100), S=8, B=2."""
    path = make_dataset(train=range(100)).path
    train = sequential(path, context_length=8, device_batch_size=2).train
    batches = take(train, train.batches_per_epoch)
    assert len(batches) == 6
    assert batches[0].inputs.tolist() == [list(range(8)), list(range(8, 16))]
    assert batches[0].targets[0].tolist() == list(range(1, 9))
    second_epoch = next(train)
    assert second_epoch.inputs[0].tolist() == [96, 97, 98, 99, 0, 1, 2, 3]
    assert second_epoch.targets[1].tolist() == list(range(5, 13))


@pytest.mark.parametrize(("world_size", "expected"), [(1, [0]), (2, [0, 46]), (4, [0, 23, 46, 69])])
def test_rank_offsets(make_dataset, world_size, expected):
    path = make_dataset(train=range(100)).path
    loaders = [sequential(path, 8, 2, rank, world_size).train for rank in range(world_size)]
    assert [starts(next(loader))[0] for loader in loaders] == expected


def test_validation_ranks_have_offsets_too(make_dataset):
    path = make_dataset(val=range(100)).path
    assert [starts(next(sequential(path, 8, 2, rank, 4).val))[0] for rank in range(4)] == [0, 23, 46, 69]


def test_a_run_is_contiguous_over_rows_batches_and_shards(make_dataset):
    train = sequential(make_dataset(train=range(100), shards=7).path, context_length=5, device_batch_size=3).train
    tokens = torch.cat([batch.inputs.flatten() for batch in take(train, 20)])
    assert torch.equal(tokens, torch.arange(300) % 100)


def test_a_batch_longer_than_the_split_wraps_more_than_once(make_dataset):
    train = sequential(make_dataset(train=range(10)).path, context_length=8, device_batch_size=4).train
    batch = next(train)
    assert torch.equal(batch.inputs.flatten(), torch.arange(32) % 10)
    assert torch.equal(batch.targets.flatten(), torch.arange(1, 33) % 10)


def test_shuffle_draws_one_start_per_batch(make_dataset):
    path = make_dataset(train=range(250)).path
    batches = take(sequential(path, 5, 4, shuffle=True).train, 10)
    for batch in batches:
        first = starts(batch)[0]
        assert torch.equal(batch.inputs.flatten(), (first + torch.arange(20)) % 250)
    assert len({starts(batch)[0] for batch in batches}) > 5
    with pytest.raises(ValueError, match="shuffle = True"):
        sequential(path, 5, 4).train.load_state_dict(sequential(path, 5, 4, shuffle=True).train.state_dict())


# --- batches -----------------------------------------------------------------------------------------------------


def test_batch_moves_all_of_its_tensors():
    batch = Batch(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([0, 3]))
    moved = batch.to("meta")
    assert {t.device.type for t in (moved.inputs, moved.targets, moved.cu_seqlens)} == {"meta"}
    assert Batch(torch.zeros(1), torch.ones(1)).to("meta").cu_seqlens is None

"""Packed conversations: whole, supervised by masks, padded and never cropped, and never a batch without a target."""

import importlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, packed_chat
from gpt_data.loaders import documents as documents_module

loader_module = importlib.import_module("gpt_data.loaders.packed_chat")  # the name is also the function's

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
conversations_of_shards = st.lists(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=16), min_size=1, max_size=12), min_size=1, max_size=3
)
"""Shards of conversations of masks: whether each token after BOS counts."""


def write(make_documents, shards, **options):
    """A dataset of these conversations; ids count on, so that each says where it stood. -> info, [(ids, mask)]."""
    numbers = itertools.count(1)
    conversations = [
        [([0, *itertools.islice(numbers, len(mask))], [0, *map(int, mask)]) for mask in shard] for shard in shards
    ]
    ids = [np.concatenate([ids for ids, _ in shard]) for shard in conversations]
    masks = [np.concatenate([mask for _, mask in shard]) for shard in conversations]
    splits = {"train": ids, "val": ids}
    made = make_documents(splits, masks={"train": masks, "val": masks}, **options)
    return made, [pair for shard in conversations for pair in shard]


def usable(conversations, capacity, loss_on="mask"):
    kept = [(ids[:capacity], mask[:capacity]) for ids, mask in conversations]
    return [(ids, mask) for ids, mask in kept if (any(mask) if loss_on == "mask" else len(ids) > 1)]


def reference(conversations, capacity, buffer):
    """(ids, targets) of the rows, endless, by plain search through the buffer."""
    coming, waiting = 0, []
    while True:
        row, targets = [], []
        while len(row) < capacity:
            if not row or not waiting:  # a new row, or nothing is left
                while len(waiting) < buffer and (not waiting or coming):  # not over an epoch's end
                    waiting.append(coming)
                    coming = (coming + 1) % len(conversations)
            fitting = [k for k in waiting if len(conversations[k][0]) <= capacity - len(row)]
            if not fitting:
                break
            chosen = max(fitting, key=lambda k: (len(conversations[k][0]), -k))
            waiting.remove(chosen)
            ids, mask = conversations[chosen]
            row += ids
            targets += [token if counts else -1 for token, counts in zip(ids, mask, strict=True)]
        padding = capacity - len(row)
        yield [*row, *[0] * padding][:-1], [*targets, *[-1] * padding][1:]


@few
@given(
    shards=conversations_of_shards,
    context=st.integers(1, 20),
    buffer=st.integers(1, 6),
    ranks=st.integers(1, 8),
    block=st.sampled_from([3, 64, 1 << 20]),
)
def test_rows_are_those_of_the_reference(make_documents, monkeypatch, shards, context, buffer, ranks, block):
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", block)
    made, conversations = write(make_documents, shards)
    assume(made.splits["train"].tokens > context)
    kept = usable(conversations, context + 1)
    loaders = [
        packed_chat(made.path, context, 2, rank, ranks, buffer=buffer, prefetch=0).train for rank in range(ranks)
    ]
    if not kept:
        with pytest.raises(DatasetError, match=r"no conversation has a target that counts.*longer context_length"):
            next(loaders[0])
        return
    rows = reference(kept, context + 1, buffer)
    for _ in range(3):
        for loader in loaders:
            batch = next(loader)
            for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
                assert (inputs, targets) == next(rows)
                assert any(target != -1 for target in targets)


@few
@given(shards=conversations_of_shards, context=st.integers(1, 12))
def test_everything_but_padding_counts_with_loss_on_all(make_documents, shards, context):
    made, conversations = write(make_documents, shards)
    assume(made.splits["train"].tokens > context)
    kept = usable(conversations, context + 1, "all")
    rows = reference([(ids, [1] * len(ids)) for ids, _ in kept], context + 1, 100)
    for batch in itertools.islice(packed_chat(made.path, context, 3, loss_on="all", prefetch=0).train, 3):
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            assert (inputs, targets) == next(rows)


def test_long_conversations_and_those_without_an_answer(make_documents):
    """spec/scaling §9.14: longer than capacity: no endless loop, no row without a target; here by hand."""
    unanswered, late, long, short = [0] * 5, [0] * 9 + [1], [0, 1] + [0] * 20, [0, 1, 1]
    made, _ = write(make_documents, [[unanswered, late, long, short]])
    # ids: unanswered 1-5, late 6-15 (its answer is beyond the row), long 16-37, short 38-40
    splits = packed_chat(made.path, 7, 1, buffer=2, prefetch=0)
    said = "of 4 conversations 2 are longer than the context of 7 tokens and cut there; 2 are left out: nothing"
    assert splits.notes[0].startswith(said) and packed_chat(made.path, 22, 1).notes == ()
    train = splits.train
    assert train.batches_per_epoch == 2, "rows, and not the 44 tokens in rows of 8"
    first, second = next(train), next(train)
    assert first.inputs.tolist() == [[0, 16, 17, 18, 19, 20, 21]]
    assert first.targets.tolist() == [[-1, 17, -1, -1, -1, -1, -1]]
    assert second.inputs.tolist() == [[0, 38, 39, 40, 0, 38, 39]]  # and the next epoch's, the longest that fits
    assert second.targets.tolist() == [[-1, 39, 40, -1, -1, 39, 40]]
    val = packed_chat(made.path, 7, 1, buffer=1).val
    rows = [next(val) for _ in range(2)]
    assert rows[1].inputs.tolist() == [[0, 38, 39, 40, 0, 0, 0]]
    assert rows[1].targets.tolist() == [[-1, 39, 40, -1, -1, -1, -1]]


@few
@given(
    shards=conversations_of_shards,
    done=st.integers(0, 4),
    ranks=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    shuffle=st.booleans(),
)
def test_a_state_continues_at_any_number_of_ranks(make_documents, shards, done, ranks, shuffle):
    made, conversations = write(make_documents, shards)
    assume(made.splits["train"].tokens > 9 and usable(conversations, 10))
    before, after = ranks

    def build(rank, world_size, **options):
        return packed_chat(made.path, 9, 1, rank, world_size, buffer=4, shuffle=shuffle, **options).train

    first = build(before - 1, before, prefetch=0)
    for _ in range(done):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    straight = [next(train) for train in [build(0, 1, prefetch=0)] for _ in range(done * before + 2 * after)]
    for rank in range(after):
        resumed = build(rank, after, prefetch=rank % 2)
        next(resumed)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        for step in range(2):
            batch, expected = next(resumed), straight[done * before + step * after + rank]
            assert batch.inputs.equal(expected.inputs) and batch.targets.equal(expected.targets)


@few
@given(
    shards=conversations_of_shards,
    context=st.integers(1, 20),
    buffer=st.integers(1, 6),
    ranks=st.integers(1, 8),
    rows=st.integers(1, 3),
)
def test_an_evaluation_counts_every_target_once(make_documents, shards, context, buffer, ranks, rows):
    """At any number of ranks, and again if the loaders go on; rows that fill up the last batch hold only padding."""
    made, conversations = write(make_documents, shards)
    kept = usable(conversations, context + 1)
    assume(made.splits["val"].tokens > context and kept)
    expected = sorted(token for ids, mask in kept for token, counts in zip(ids, mask, strict=True) if counts)
    loaders = [packed_chat(made.path, context, rows, rank, ranks, buffer=buffer).val for rank in range(ranks)]
    for _ in range(2):
        batches = [next(loader) for loader in loaders for _ in range(loaders[0].batches_per_epoch)]
        assert sorted(t for batch in batches for t in batch.targets.flatten().tolist() if t >= 0) == expected
    assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1


def test_a_first_token_that_counts_is_no_target(make_documents):
    """It begins the row, so nothing predicts it: the conversation 1-3 has no target."""
    ids, mask = np.r_[0, 1:4, 0, 4:7], np.r_[1, 0, 0, 0, 0, 1, 1, 1]
    made = make_documents({"train": [ids], "val": [ids]}, masks={"train": [mask], "val": [mask]})
    batch = next(packed_chat(made.path, 3, 4, prefetch=0).train)
    assert batch.inputs.tolist() == [[0, 4, 5]] * 4 and batch.targets.tolist() == [[4, 5, 6]] * 4


def test_what_is_no_chat_is_explained(make_documents):
    ended = make_documents({"train": [np.r_[1:30, 0]], "val": [np.r_[1:30, 0]]}, at="end")
    with pytest.raises(DatasetError, match=r"do not begin with a BOS token.*use best_fit"):
        packed_chat(ended.path, 4, 1)
    continuous = make_documents({"train": [np.arange(40)], "val": [np.arange(40)]}, at=None)
    with pytest.raises(DatasetError, match="one continuous text"):
        packed_chat(continuous.path, 4, 1)


def test_conversations_without_a_mask_count_whole(make_documents):
    made = make_documents({"train": [np.r_[0, 1:4, 0, 4:9]], "val": [np.r_[0, 1:4, 0, 4:9]]})
    batch = next(packed_chat(made.path, 9, 1).val)
    assert batch.inputs.tolist() == [[0, 4, 5, 6, 7, 8, 0, 1, 2]] and batch.targets.tolist() == [
        [4, 5, 6, 7, 8, 0, 1, 2, 3]
    ]


def test_a_split_shorter_than_a_row_is_padded(make_documents):
    """A handful of conversations validates a run; the other loaders want a whole row."""
    info, _ = write(make_documents, [[[True, False, True]]])
    batch = next(packed_chat(info.path, context_length=16, device_batch_size=2).val)
    assert (batch.targets != -1).sum() == 2 and batch.targets.shape == (2, 16)


def test_a_row_of_its_own_for_each_conversation(make_documents, monkeypatch):
    """Without packing rows are conversations and padding, each once in an epoch; `auto` does so for few of them."""
    talks = [[False, True], [False, True, True, True], [True], [False, False, True]]
    info, conversations = write(make_documents, [talks])
    for pack, few in ((False, 500), ("auto", 5)):
        monkeypatch.setattr(loader_module, "FEW", few)
        splits = packed_chat(info.path, context_length=8, device_batch_size=1, pack=pack)
        rows = [next(splits.train).inputs[0].tolist() for _ in range(8)]
        alone = [[*ids, *[0] * (8 - len(ids))] for ids, _ in conversations]
        assert sorted(rows[:4]) == sorted(rows[4:]) == sorted(alone)
        assert splits.train.batches_per_epoch == splits.val.batches_per_epoch == 4
    monkeypatch.setattr(loader_module, "FEW", 0)
    assert packed_chat(info.path, context_length=8, device_batch_size=1, pack="auto").val.batches_per_epoch == 2

"""Document-aligned batches are the speedrun's, batch by batch, at any number of ranks, and resume exactly."""

import itertools
import json
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, best_fit, document_aligned
from gpt_data.loaders import documents as documents_module
from gpt_data.loaders.document_aligned import cut_longer

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def documents(lengths, first=1):
    """One array per length: the boundary 0, then ids that count on, so that every id says where it stood."""
    ids = itertools.count(first)
    return [np.array([0, *itertools.islice(ids, length - 1)]) for length in lengths]


def joined(parts):
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def speedrun_lengths():
    """spec/speedrun §8.18"""
    return [(137 * i * i + 53 * i) % 3000 + 2 for i in range(400)]


def reference(shards, ranks, tokens, cap):
    """spec/speedrun §5, read literally: batches of one epoch, each a list over ranks of (ids, lengths of documents)."""
    for shard in shards:
        starts = [p for p, token in enumerate(shard) if token == 0]
        index = 0
        while True:
            batch = []
            for _ in range(ranks):
                row, lengths = [], []
                while len(row) < tokens + 1 and index < len(starts):
                    begin = starts[index]
                    following = starts[index + 1] if index + 1 < len(starts) else len(shard)
                    end = min(following, begin + cap, begin + tokens + 1 - len(row))
                    row.extend(int(token) for token in shard[begin:end])
                    lengths.append(end - begin)
                    index += 1
                batch.append((row, lengths))
            if len(batch[-1][0]) < tokens + 1:
                break  # the index ran out: the partial batch is dropped
            yield batch


def expected_batch(row, lengths, size):
    """(inputs, targets, cu_seqlens) of a rank's documents."""
    lengths = [*lengths[:-1], lengths[-1] - 1]
    ends = np.cumsum(lengths).tolist()
    return row[:-1], row[1:], [0, *ends, *[len(row) - 1] * (size - 1 - len(ends))]


def assert_batch(batch, row, lengths):
    inputs, targets, cu_seqlens = expected_batch(row, lengths, len(batch.cu_seqlens))
    assert batch.inputs.tolist() == [inputs] and batch.targets.tolist() == [targets]
    assert batch.cu_seqlens.tolist() == cu_seqlens
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64 and batch.cu_seqlens.dtype == torch.int32


def plain(batch):
    return batch.inputs.tolist(), batch.targets.tolist(), batch.cu_seqlens.tolist()


def take(loader, count):
    return [plain(batch) for batch in itertools.islice(loader, count)]


# --- the speedrun's semantics ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1024])
def test_spec_assertion_18(make_documents, offset):
    """spec/speedrun §8.18: a shard with known document lengths, two ranks of 16384 tokens, cap 2048."""
    shard = joined([d % 50_000 for d in documents(speedrun_lengths())])
    shard[np.cumsum([0, *speedrun_lengths()[:-1]])] = 50_256
    made = make_documents({"train": [shard], "val": [shard]}, boundary=50_256, offset=offset)
    loaders = [document_aligned(made.path, 2048, 8, rank, 2, prefetch=0).train for rank in range(2)]
    counts, firsts, indices, positions = [], [], [], []
    begins = np.cumsum([0, *speedrun_lengths()[:-1]])
    for _ in range(2):
        before = loaders[0].state_dict()["document"]
        for loader in loaders:
            batch = next(loader)
            inner = batch.cu_seqlens[batch.cu_seqlens < 16384]
            counts.append(len(inner))
            firsts.append(torch.diff(batch.cu_seqlens.long()).tolist())
            assert len(batch.cu_seqlens) == 128 and batch.inputs.shape == (1, 16384)
            assert (batch.inputs[0, inner.long()] == 50_256).all()
            positions.append(int(begins[before]))
            before += len(inner)
        indices.append(loaders[0].state_dict()["document"])
    assert counts == [13, 11, 12, 15]
    assert firsts[0][:4] == [2, 192, 656, 1394]
    assert firsts[0][11:13] == [2048, 1929 - 1]  # the last length is reduced by one
    assert positions == [0, 18210, 37064, 57132]
    assert indices == [24, 51]


lengths_of_shards = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=40), min_size=1, max_size=3)


@few
@given(
    shards=lengths_of_shards,
    ranks=st.integers(1, 8),
    tokens=st.integers(1, 12),
    cap=st.integers(1, 40),
    before=st.integers(0, 9),
    block=st.sampled_from([1, 7, 64, 1 << 20]),
)
def test_batches_are_those_of_the_reference(make_documents, monkeypatch, shards, ranks, tokens, cap, before, block):
    """Every rank and batch, at 1 to 8 ranks, over shards and the epoch's end; the size of blocks changes nothing.

    before: tokens of a document that an earlier shard cut, left out as upstream does.
    """
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", block)
    monkeypatch.setattr(documents_module, "SEARCH_TOKENS", min(block, 5))
    parts = [joined([np.arange(1, before + 1), *documents(lengths, 100)]) for lengths in shards]
    assume(sum(map(len, parts)) > tokens)
    epoch = list(reference(parts, ranks, tokens, cap))
    made = make_documents({"train": parts, "val": [np.arange(20)]})
    loaders = [
        document_aligned(made.path, tokens, 1, rank, ranks, max_document=cap, prefetch=0).train for rank in range(ranks)
    ]
    if not epoch:
        for loader in loaders:
            with pytest.raises(DatasetError, match=r"no shard holds enough documents .* smaller device_batch_size"):
                next(loader)
    for number in range(2 * len(epoch) + 1 if epoch else 0):
        for loader, (row, lengths) in zip(loaders, epoch[number % len(epoch)], strict=True):
            assert_batch(next(loader), row, lengths)
        assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1


@few
@given(lengths=st.lists(st.integers(1, 9), min_size=8, max_size=60), shards=st.integers(1, 5), ranks=st.integers(1, 8))
def test_end_tokens_give_the_same_stream_over_all_shards(make_documents, monkeypatch, lengths, shards, ranks):
    """With boundary at `end` the end token begins the next document, and where shards end means nothing."""
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", 8)
    text = joined([np.r_[d[1:], 0] for d in documents(lengths)])
    as_starts = [p for p, token in enumerate(text[:-1]) if token == 0]  # every end token but the last
    pieces = np.split(text, sorted({0, *as_starts}))[1:]
    epoch = list(walk_pieces(pieces, ranks, 6, 5))
    made = make_documents({"train": np.array_split(text, shards), "val": [np.arange(20)]}, at="end")
    loaders = [
        document_aligned(made.path, 6, 1, rank, ranks, max_document=5, prefetch=0).train for rank in range(ranks)
    ]
    if not epoch:
        with pytest.raises(DatasetError, match="the split never holds enough documents"):
            next(loaders[0])
    for number in range(2 * len(epoch)):
        for loader, (row, lengths_) in zip(loaders, epoch[number % len(epoch)], strict=True):
            assert_batch(next(loader), row, lengths_)


def walk_pieces(pieces, ranks, tokens, cap):
    """The reference with documents given as arrays."""
    left = list(pieces)
    while True:
        batch = []
        for _ in range(ranks):
            row, lengths = [], []
            while len(row) < tokens + 1 and left:
                part = left.pop(0)[: min(cap, tokens + 1 - len(row))].tolist()
                row, lengths = row + part, [*lengths, len(part)]
            batch.append((row, lengths))
        if len(batch[-1][0]) < tokens + 1:
            return
        yield batch


@few
@given(
    shards=lengths_of_shards,
    done=st.integers(0, 5),
    before=st.integers(1, 8),
    after=st.integers(1, 8),
    block=st.sampled_from([3, 64, 1 << 20]),
)
def test_resuming_on_other_ranks_goes_on_with_the_next_one(
    make_documents, monkeypatch, shards, done, before, after, block
):
    """None is lost, none is doubled: the walk goes on from the place as the reference does."""
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", block)
    parts = [joined(documents(lengths, 100 + 2000 * k)) for k, lengths in enumerate(shards)]
    assume(list(reference(parts, before, 4, 6)) and list(reference(parts, after, 4, 6)))
    made = make_documents({"train": parts, "val": [np.arange(20)]})
    first = document_aligned(made.path, 4, 1, before - 1, before, max_document=6, prefetch=0).train
    take(first, done)
    state = json.loads(json.dumps(first.state_dict()))
    left = parts[state["shard"]].copy()
    index = [p for p, token in enumerate(left) if token == 0][state["document"] :]
    rest = [left[index[0] :] if index else left[:0], *parts[state["shard"] + 1 :]]
    expected = [*reference(rest, after, 4, 6), *reference(parts, after, 4, 6)][:4]
    for rank in range(after):
        resumed = document_aligned(made.path, 4, 1, rank, after, max_document=6, prefetch=0).train
        take(resumed, 2)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        for batch in expected:
            assert_batch(next(resumed), *batch[rank])
    straight = take(first, 3)
    resumed = document_aligned(made.path, 4, 1, before - 1, before, max_document=6).train
    resumed.load_state_dict(state)
    assert take(resumed, 3) == straight and resumed.state_dict() == first.state_dict()


# --- what cannot be ----------------------------------------------------------------------------------------------


def test_a_dataset_without_documents_is_explained(make_documents):
    made = make_documents({"train": [np.arange(99)], "val": [np.arange(50)]}, at=None)
    with pytest.raises(DatasetError, match=r"one continuous text.*Use random_windows or sequential"):
        document_aligned(made.path, 4, 2)
    made = make_documents({"train": [np.arange(1, 99)], "val": [np.arange(50)]})
    with pytest.raises(DatasetError, match="no shard holds enough documents"):
        next(document_aligned(made.path, 4, 2).train)


def test_masked_targets_are_ignored(make_documents):
    ids = joined(documents([4, 5, 6] * 9))
    mask = ids % 3 == 1
    made = make_documents({"train": [ids], "val": [ids]}, masks={"train": [mask], "val": [mask]})
    for loss_on in ("mask", "all"):
        splits = document_aligned(made.path, 4, 3, loss_on=loss_on, prefetch=0)
        for loader in (splits.train, splits.val):
            batch = next(loader)
            kept = batch.targets != -1
            if loss_on == "all":
                assert kept.all()
            else:
                assert (batch.targets[kept] % 3 == 1).all() and (batch.inputs[0, 1:][~kept[0, :-1]] % 3 != 1).all()


@pytest.mark.parametrize("left", range(0, 60, 7))
def test_a_shard_that_shrinks_is_an_error_and_never_garbage(make_documents, left):
    made = make_documents({"train": [joined(documents([3] * 10))], "val": [np.arange(20)]})
    train = document_aligned(made.path, 4, 1, prefetch=0).train
    with open(made.path / "train_000000.bin", "r+b") as file:
        file.truncate(left)
    with pytest.raises(DatasetError, match=f"train_000000.bin: ends at byte {left}"):
        next(train)
    with pytest.raises(DatasetError, match="expected 60 bytes"):
        document_aligned(made.path, 4, 1)


@pytest.mark.parametrize("factory", [document_aligned, best_fit])
def test_the_reading_thread_ends_with_its_loader(make_documents, factory):
    """At once, not when the garbage collector comes: every evaluation begins a new walk."""
    made = make_documents({"train": [joined(documents([3] * 30))], "val": [np.arange(50)]})

    before = set(threading.enumerate())
    loader = factory(made.path, 4, 2, prefetch=0).train
    next(loader)
    [thread] = [t for t in threading.enumerate() if t.name.startswith("documents") and t not in before]
    del loader
    thread.join(10)
    assert not thread.is_alive()


# --- evaluation --------------------------------------------------------------------------------------------------


@few
@given(
    lengths=st.lists(st.integers(1, 20), min_size=5, max_size=40),
    ranks=st.integers(1, 8),
    rows=st.integers(1, 3),
    cut=st.booleans(),
    at=st.sampled_from(["start", "end"]),
)
def test_evaluation_takes_contiguous_windows(make_documents, lengths, ranks, rows, cut, at):
    """Step k of all ranks is the next W·n tokens, each counts once an epoch; boundaries begin sequences."""
    text = joined(documents(lengths))
    tokens = 4 * rows
    assume(len(text) > tokens)
    made = make_documents({"train": [text], "val": np.array_split(text, 3)}, at=at)
    loaders = [document_aligned(made.path, 4, rows, rank, ranks, cut_validation=cut).val for rank in range(ranks)]
    windows = (len(text) - 1) // tokens
    assert all(loader.batches_per_epoch == -(-windows // ranks) for loader in loaders)
    for step in range(loaders[0].batches_per_epoch + 1):
        for rank, loader in enumerate(loaders):
            batch = next(loader)
            first = (step % loader.batches_per_epoch * ranks + rank) % windows * tokens
            assert batch.inputs.tolist() == [text[first : first + tokens].tolist()]
            counts = step % loader.batches_per_epoch * ranks + rank < windows
            targets = text[first + 1 : first + tokens + 1].tolist() if counts else [-1] * tokens
            assert batch.targets.tolist() == [targets]
            starts = [p for p in range(tokens) if text[first + p] == 0]
            if cut:
                edges = [0, *starts, tokens]
                more = [p for a, b in itertools.pairwise(edges) for p in range(a + 4, b, 4)]
                starts = sorted(starts + more)
                assert np.diff(batch.cu_seqlens).max() <= 4
            assert batch.cu_seqlens.tolist() == [0, *starts] + [tokens] * (len(batch.cu_seqlens) - 1 - len(starts))
    state = json.loads(json.dumps(loaders[0].state_dict()))
    assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
    resumed = document_aligned(made.path, 4, rows, 0, ranks, cut_validation=cut).val
    resumed.load_state_dict(state)
    assert take(resumed, 3) == take(loaders[0], 3)


def test_cut_longer_by_hand():
    assert cut_longer(np.array([3, 10]), 12, 4).tolist() == [3, 7, 10]
    assert cut_longer(np.array([], np.int64), 9, 4).tolist() == [4, 8]
    assert cut_longer(np.array([0]), 4, 4).tolist() == [0]


def test_a_split_shorter_than_a_window_is_explained(make_documents):
    made = make_documents({"train": [joined(documents([3] * 30))], "val": [np.arange(8)]})
    with pytest.raises(DatasetError, match=r"has 8 tokens, a batch needs 9 \(device_batch_size"):
        document_aligned(made.path, 4, 2)
    assert next(document_aligned(made.path, 7, 1).val).inputs.tolist() == [list(range(7))]

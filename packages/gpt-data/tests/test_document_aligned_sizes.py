"""Document-aligned batches: sizes that change, room for documents, states of other streams, failed reads."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from gpt_data import DatasetError, document_aligned


def documents(lengths, first=1):
    """One array per length: the boundary 0, then ids that count on, so that every id says where it stood."""
    ids = itertools.count(first)
    return [np.array([0, *itertools.islice(ids, length - 1)]) for length in lengths]


def joined(parts):
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


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


def plain(batch):
    return batch.inputs.tolist(), batch.targets.tolist(), batch.cu_seqlens.tolist()


def take(loader, count):
    return [plain(batch) for batch in itertools.islice(loader, count)]


@pytest.mark.parametrize(
    ("context", "rows", "length"), [(2048, 8, 128), (2048, 16, 128), (2048, 24, 256), (2048, 128, 896), (64, 64, 256)]
)
def test_lengths_of_cu_seqlens(make_documents, context, rows, length):
    """spec/speedrun §8.19; with short contexts, where every document is short, there is room for four per row."""
    shard = np.tile(joined(documents([500])), 600)
    splits = document_aligned(make_documents({"train": [shard], "val": [shard]}).path, context, rows, prefetch=0)
    assert len(next(splits.train).cu_seqlens) == len(next(splits.val).cu_seqlens) == length


@pytest.mark.parametrize("prefetch", [0, 3])
def test_new_sizes_hold_for_the_very_next_batch(make_documents, prefetch):
    lengths = [5, 9, 3, 12, 7] * 40
    made = make_documents({"train": [joined(documents(lengths))], "val": [np.arange(90)]})
    train = document_aligned(made.path, 4, 2, max_document=6, prefetch=prefetch).train
    small = take(train, 3)
    train.resize(device_batch_size=5, max_document=8)
    large = take(train, 2)
    state = json.loads(json.dumps(train.state_dict()))
    pieces = documents(lengths)
    for (inputs, _, _), (row, _) in zip(small, (b[0] for b in walk_pieces(pieces, 1, 8, 6)), strict=False):
        assert inputs == [row[:-1]]
    used = sum(len([x for x in inputs[0] + targets[0][-1:] if x == 0]) for inputs, targets, _ in small)
    for (inputs, _, _), (row, _) in zip(large, (b[0] for b in walk_pieces(pieces[used:], 1, 20, 8)), strict=False):
        assert inputs == [row[:-1]] and len(row) == 21
    assert train.batch_shape == (1, 20)
    again = document_aligned(made.path, 4, 2, max_document=6, prefetch=prefetch).train
    again.load_state_dict(state)
    assert again.batch_shape == (1, 20) and take(again, 2) == take(train, 2)
    with pytest.raises(ValueError, match=r"at least 1, got 0 and 8"):
        train.resize(device_batch_size=0)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_state_from_before_new_sizes_goes_on_with_the_old_ones(make_documents, prefetch):
    made = make_documents({"train": [joined(documents([5, 9, 3, 12, 7] * 40))], "val": [np.arange(90)]})
    train = document_aligned(made.path, 4, 2, max_document=6, prefetch=prefetch).train
    take(train, 2)
    before = json.loads(json.dumps(train.state_dict()))
    straight = take(train, 3)
    train.resize(device_batch_size=5, max_document=8)
    assert train.device_batch_size == 5
    take(train, 1)
    train.load_state_dict(before)
    assert train.device_batch_size == 2 and train.state_dict() == before
    assert take(train, 3) == straight
    after = document_aligned(made.path, 4, 3, max_document=7, prefetch=prefetch).train
    after.load_state_dict(before)  # taken with other sizes, that nobody changed: its own hold
    assert after.batch_shape == (1, 12) and after.device_batch_size == 3


@pytest.mark.parametrize(
    "resized",
    [5, [], {}, {"foo": 1}, {"device_batch_size": 2}]
    + [{"device_batch_size": size, "max_document": 3} for size in (0, "2", None, True)],
)
def test_sizes_of_a_damaged_state_are_refused(make_documents, resized):
    made = make_documents({"train": [joined(documents([3] * 30))], "val": [np.arange(50)]})
    train = document_aligned(made.path, 4, 2, prefetch=0).train
    with pytest.raises(ValueError, match=r"this loader state has resized = .*expected None or device_batch_size and"):
        train.load_state_dict(train.state_dict() | {"resized": resized})
    assert train.device_batch_size == 2


def test_too_many_documents_say_what_to_raise(make_documents):
    made = make_documents({"train": [joined(documents([2] * 400))], "val": [np.zeros(400)]})
    splits = document_aligned(made.path, 150, 2, prefetch=0)
    for loader, needed, give in ((splits.train, 152, 256), (splits.val, 302, 384)):
        with pytest.raises(
            DatasetError, match=rf"are {needed} numbers.*room for 128\. Give max_documents={give} or more"
        ):
            next(loader)
        short, exact = (document_aligned(made.path, 150, 2, max_documents=m, prefetch=0) for m in (needed - 1, needed))
        with pytest.raises(DatasetError, match="Give max_documents"):
            next(short.train if loader is splits.train else short.val)
        batch = next(exact.train if loader is splits.train else exact.val)
        assert batch.cu_seqlens[-1] == 300
    roomy = document_aligned(made.path, 150, 2, max_documents=400, prefetch=0)
    assert len(next(roomy.train).cu_seqlens) == len(next(roomy.val).cu_seqlens) == 400
    with pytest.raises(ValueError, match="max_documents is 1, expected at least 2"):
        document_aligned(made.path, 150, 2, max_documents=1)


@pytest.mark.parametrize(("length", "room"), [(2, 384), (20, 128), (671, 128)])
def test_short_documents_get_room(make_documents, length, room):
    """Twice the average, from what the dataset says of itself; a user need not know it before the run."""
    ids = joined(documents([length] * 900))
    made = make_documents({"train": [ids], "val": [ids]}, vocab_size=1_000_000)
    splits = {name: dataclasses.replace(split, documents=900) for name, split in made.splits.items()}
    dataclasses.replace(made, splits=splits).save()
    opened = document_aligned(made.path, 150, 2, prefetch=0)
    assert len(next(opened.train).cu_seqlens) == len(next(opened.val).cu_seqlens) == room


@pytest.mark.parametrize(("rows", "length"), [(8, 128), (16, 128), (24, 256), (128, 896)])
def test_documents_of_the_web_get_upstreams_room(make_documents, rows, length):
    """FineWeb: 671 tokens of GPT-2's per document."""
    ids = joined([d % 60_000 for d in documents([671] * 400)])
    made = make_documents({"train": [ids], "val": [ids]})
    splits = {name: dataclasses.replace(split, documents=400) for name, split in made.splits.items()}
    dataclasses.replace(made, splits=splits).save()
    assert document_aligned(made.path, 2048, rows, prefetch=0).train.lengths == length


def test_after_a_failed_read_the_same_batch_is_tried_again(make_documents):
    made = make_documents({"train": [joined(documents([5, 9, 3, 12, 7] * 8))], "val": [np.arange(20)]})
    path = made.path / "train_000000.bin"
    whole = path.read_bytes()
    expected = take(document_aligned(made.path, 4, 2, prefetch=0).train, 4)
    for size in (0, 40, 100):
        train = document_aligned(made.path, 4, 2, prefetch=0).train
        batches = take(train, 1)
        path.write_bytes(whole[:size])
        state = train.state_dict()
        for _ in range(2):
            with pytest.raises(DatasetError, match="ends at byte"):
                while True:
                    batches += take(train, 1)
                    state = train.state_dict()
        assert train.state_dict() == state
        path.write_bytes(whole)
        assert batches + take(train, 4 - len(batches)) == expected


def test_what_counts_and_what_is_cut_is_part_of_a_state(make_documents):
    ids = joined(documents([4, 5, 6] * 9))
    masks = {"train": [ids % 2], "val": [ids % 2]}
    masked, plain = (
        make_documents({"train": [ids], "val": [ids]}, masks=masks),
        make_documents({"train": [ids], "val": [ids]}),
    )

    def build(made, **options):
        return document_aligned(made.path, 4, 2, prefetch=0, **options)

    for first, second in (("all", "mask"), ("mask", "all")):
        for split in ("train", "val"):
            state = getattr(build(masked, loss_on=first), split).state_dict()
            with pytest.raises(ValueError, match=f"loss_on = '{first}', the loader has '{second}'"):
                getattr(build(masked, loss_on=second), split).load_state_dict(state)
    build(plain, loss_on="all").train.load_state_dict(build(plain).train.state_dict())  # nothing to leave out
    with pytest.raises(ValueError, match="cut = True, the loader has False"):
        build(plain, cut_validation=False).val.load_state_dict(build(plain).val.state_dict())


def test_a_state_of_another_stream_is_refused(make_documents):
    made = make_documents({"train": [joined(documents([3] * 30))], "val": [np.arange(50)]})
    splits = document_aligned(made.path, 4, 2, prefetch=0)
    state = splits.train.state_dict()
    for change, message in (
        ({"dataset": "x"}, "dataset = 'x'"),
        ({"shard": 1}, "the split has shards 0 to 0"),
        ({"document": None}, "'document': None.*expected integers"),
        ({"position": -2}, "the split has shards"),
    ):
        with pytest.raises(ValueError, match=message):
            splits.train.load_state_dict(state | change)
    with pytest.raises(ValueError, match="context_length = 5"):
        document_aligned(made.path, 4, 2).train.load_state_dict(document_aligned(made.path, 5, 2).train.state_dict())


def test_validation_has_batches_of_its_own_size(make_documents):
    made = make_documents({"train": [joined(documents([9] * 60))], "val": [joined(documents([9] * 60))]})
    splits = document_aligned(made.path, 8, 2, prefetch=0, val_batch_size=5)
    assert next(splits.train).inputs.shape == (1, 16) and next(splits.val).inputs.shape == (1, 40)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_room_for_documents_changes_with_the_size_and_is_no_part_of_a_state(make_documents, prefetch):
    made = make_documents({"train": [joined(documents([9] * 60))], "val": [joined(documents([9] * 60))]})
    loader = document_aligned(made.path, 8, 2, prefetch=prefetch).train
    loader.resize(2, None, 6)
    assert next(loader).cu_seqlens.tolist() == [0, 8, 16, 16, 16, 16]
    state = loader.state_dict()
    loader.resize(1, None, 3)
    assert len(next(loader).cu_seqlens) == 3
    fresh = document_aligned(made.path, 8, 2, prefetch=prefetch).train
    fresh.load_state_dict(state)
    assert len(next(fresh).cu_seqlens) == 128, "who resizes it says so again"
    with pytest.raises(ValueError, match="max_documents is 1"):
        fresh.resize(None, None, 1)

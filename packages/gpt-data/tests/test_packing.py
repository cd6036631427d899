"""Best-fit packing: what goes into which row, that every document is taken once, and that it resumes exactly."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, best_fit
from gpt_data.loaders import documents as documents_module
from gpt_data.loaders.documents import Place, Scanner
from gpt_data.loaders.packing import DocumentFeed, Packer, shard_order

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
lengths_of_shards = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=20), min_size=1, max_size=4)


class Listed:
    """A feed of documents of given lengths."""

    epoch, place = 0, Place()

    def __init__(self, lengths):
        self.documents = zip(itertools.accumulate([0, *lengths]), lengths, strict=False)

    def __next__(self):
        return next(self.documents)


def documents(lengths, first=1):
    """The boundary 0, then ids that count on, so that every id says where it stood."""
    ids = itertools.count(first)
    return [np.array([0, *itertools.islice(ids, length - 1)]) for length in lengths]


def parts_of(shards):
    return [np.concatenate(documents(lengths, 1 + 10_000 * k)) for k, lengths in enumerate(shards)]


def rows_of(loader, count):
    """The first `count` rows, each T+1 ids."""
    rows = []
    while len(rows) < count:
        batch = next(loader)
        rows.extend([*x, y[-1]] for x, y in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True))
    return rows[:count]


def reference(lengths, capacity, buffer):
    """Rows as lists of (document, tokens used), by search through an unsorted buffer; endless over `lengths`."""
    coming, waiting = 0, []
    while True:
        row, gap = [], capacity
        while gap:
            if gap == capacity or not waiting:  # a new row, or nothing is left
                while len(waiting) < buffer and (not waiting or coming % len(lengths)):  # not over an epoch's end
                    waiting.append(coming)
                    coming += 1
            size = lambda number: lengths[number % len(lengths)]
            fitting = [number for number in waiting if size(number) <= gap]
            if fitting:
                chosen = max(fitting, key=lambda number: (size(number), -(number % len(lengths))))
            else:
                chosen = min(waiting, key=lambda number: (size(number), number % len(lengths)))
            waiting.remove(chosen)
            used = min(size(chosen), gap)
            row.append((chosen % len(lengths), used))
            gap -= used
        yield row


# --- the plan ----------------------------------------------------------------------------------------------------


def test_spec_assertion_14():
    """spec/scaling §9.14: capacity 10, documents 7, 4, 3, 12 -> [7, 3] and [4, 6 of 12]; 6 of 26 cropped."""
    packer = Packer(Listed([7, 4, 3, 12]), capacity=10, buffer=4, crop=True)
    assert [length for _, length in packer.row()] == [7, 3]
    packer.buffer = 0  # nothing more comes
    assert packer.row() == [(7, 4), (14, 6)]
    assert (packer.rows, packer.used, packer.cropped) == (2, 20, 6)


def test_the_shortest_is_cropped_and_without_cropping_the_row_ends():
    packer = Packer(Listed([9, 8, 5, 6]), capacity=12, buffer=4, crop=True)
    packer.row()  # 9, then 3 of 5, which is the shortest of 8, 5, 6
    assert packer.cropped == 2 and [key >> 48 for key in packer._keys] == [6, 8]
    packer = Packer(Listed([9, 8, 5, 6]), capacity=12, buffer=4, crop=False)
    assert [length for _, length in packer.row()] == [9] and packer.cropped == 0


@few
@given(shards=lengths_of_shards, context=st.integers(1, 20), buffer=st.integers(1, 12), ranks=st.integers(1, 8))
def test_rows_are_those_of_the_reference_at_any_number_of_ranks(make_documents, shards, context, buffer, ranks):
    """Row i of all goes to rank (i // B) % W; documents go on over the ends of shards and of the epoch."""
    parts = parts_of(shards)
    lengths = [length for shard in shards for length in shard]
    pieces = [piece.tolist() for k, shard in enumerate(shards) for piece in documents(shard, 1 + 10_000 * k)]
    assume(sum(lengths) > context)
    made = make_documents({"train": parts, "val": [np.zeros(99)]})
    plan = itertools.islice(reference(lengths, context + 1, buffer), 3 * 2 * ranks)
    expected = [[token for number, used in row for token in pieces[number][:used]] for row in plan]
    for rank in range(ranks):
        train = best_fit(made.path, context, 2, rank, ranks, buffer=buffer, prefetch=0).train
        own = [row for step in range(3) for row in expected[(step * ranks + rank) * 2 :][:2]]
        assert rows_of(train, 6) == own
        assert all(row[0] == 0 for row in own)


@few
@given(
    shards=lengths_of_shards,
    at=st.sampled_from(["start", "end"]),
    shuffle=st.booleans(),
    block=st.sampled_from([3, 64]),
)
def test_every_document_enters_once_per_epoch(make_documents, monkeypatch, shards, at, shuffle, block):
    """As text, whatever cuts the shards and blocks: the documents of two epochs are those of the split, twice."""
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", block)
    monkeypatch.setattr(documents_module, "SEARCH_TOKENS", 4)
    text = np.concatenate(parts_of(shards))
    if at == "end":
        text = np.r_[text[1:], 0]
    cut = np.array_split(text, min(3, len(text)))
    made = make_documents({"train": cut, "val": [text]}, at=at)
    scanner = Scanner(made, "train", virtual_start=True)
    order = lambda epoch: shard_order(scanner.shards, 5 if shuffle else None, epoch)
    feed = DocumentFeed(scanner, Place(shard=order(0)[0]), order, scanner.scan, "")
    for epoch in range(2):
        seen = []
        for _ in range(sum(map(len, shards))):
            start, length = next(feed)
            assert feed.place.epoch == epoch
            whole = text[start : start + length] if start >= 0 else np.r_[0, text[: length - 1]]
            seen.append((start, whole.tolist()))
        expected = np.r_[0, text] if at == "end" else text
        if at == "end":
            expected = np.r_[0, text[:-1]]  # the last end token is imagined at the start
            last = max(range(len(seen)), key=lambda i: seen[i][0])
            assert seen[last][1].pop() == 0  # and it ends the last document too
        assert [token for _, tokens in sorted(seen) for token in tokens] == expected.tolist()
        if not shuffle:
            assert seen == sorted(seen)


@few
@given(
    shards=lengths_of_shards,
    done=st.integers(0, 4),
    ranks=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    rows=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    shuffle=st.booleans(),
    block=st.sampled_from([5, 1 << 20]),
)
def test_a_state_continues_at_any_number_of_ranks(
    make_documents, monkeypatch, shards, done, ranks, rows, shuffle, block
):
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", block)
    made = make_documents({"train": parts_of(shards), "val": [np.zeros(99)]}, at="start")
    assume(made.splits["train"].tokens > 7)

    def build(rank, world_size, batch_size, **options):
        return best_fit(made.path, 7, batch_size, rank, world_size, buffer=6, shuffle=shuffle, **options).train

    (before, after), (rows_before, rows_after) = ranks, rows
    first = build(before - 1, before, rows_before, prefetch=0)
    for _ in range(done):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    straight = rows_of(build(0, 1, 1, prefetch=0), done * before * rows_before + 2 * after * rows_after)
    coming = straight[done * before * rows_before :]
    for rank in range(after):
        resumed = build(rank, after, rows_after, prefetch=rank % 2)
        next(resumed)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        own = [row for step in range(2) for row in coming[(step * after + rank) * rows_after :][:rows_after]]
        assert rows_of(resumed, 2 * rows_after) == own
    assert [json.dumps(build(r, 3, 2).state_dict()) for r in (0, 2)] == [json.dumps(build(1, 3, 2).state_dict())] * 2


@few
@given(
    shards=st.lists(st.lists(st.integers(2, 25), min_size=1, max_size=20), min_size=1, max_size=4),
    context=st.integers(1, 12),
    buffer=st.integers(1, 50),
    ranks=st.integers(1, 8),
    rows=st.integers(1, 3),
)
def test_an_evaluation_uses_every_document_once(make_documents, shards, context, buffer, ranks, rows):
    """Whatever the buffer holds, and again if the loaders go on: nothing counts twice, padding never."""
    made = make_documents({"train": [np.zeros(99)], "val": parts_of(shards)})
    assume(made.splits["val"].tokens > context)
    loaders = [best_fit(made.path, context, rows, rank, ranks, buffer=buffer).val for rank in range(ranks)]
    evaluations = []
    for _ in range(2):
        steps = [[next(loader) for loader in loaders] for _ in range(loaders[0].batches_per_epoch)]
        counted = [
            [first, *[token for token in targets if token >= 0]]
            for step in steps
            for batch in step
            for first, targets in zip(batch.inputs[:, 0].tolist(), batch.targets.tolist(), strict=True)
            if max(targets) >= 0
        ]
        assert sum(row.count(0) for row in counted) == sum(map(len, shards))
        others = [token for row in counted for token in row if token]
        assert len(set(others)) == len(others)
        assert any((batch.targets >= 0).any() for batch in steps[-1])  # not a step more than it takes
        evaluations.append(counted)
    assert evaluations[0] == evaluations[1]


# --- the loader --------------------------------------------------------------------------------------------------


def test_long_documents_wait_or_are_cut_or_split():
    """One longer than a row: as nanochat it is taken when it is the shortest; cut, it fills a row at once; split, all
    of it is used, each piece from the last token of the one before on."""
    rows, cropped = {}, {}
    for how in ("wait", "cut", "split"):
        packer = Packer(Listed([30, 4, 6, 5, 25, 7]), capacity=10, buffer=3, crop=True, long_documents=how)
        rows[how] = [packer.row() for _ in range(3 if how == "split" else 2)]
        cropped[how] = packer.cropped
    assert rows["wait"] == [[(34, 6), (30, 4)], [(40, 5), (45, 5)]] and cropped["wait"] == 20  # of the 25
    assert rows["cut"] == [[(0, 10)], [(34, 6), (30, 4)]] and cropped["cut"] == 20  # of the 30
    assert rows["split"] == [[(0, 10)], [(9, 10)], [(18, 10)]] and cropped["split"] == 0
    assert [key >> 48 for key in packer._keys] == [3, 4]  # the last three of the 30, and the 4


@given(length=st.integers(1, 60), capacity=st.integers(2, 12))
def test_splitting_keeps_every_target_once(length, capacity):
    packer = Packer(Listed([length] * 2), capacity, buffer=1, crop=True, long_documents="split")
    packer.fill()
    pieces = sorted(((key & (1 << 48) - 1) - 1, key >> 48) for key in packer._keys)
    targets = [target for start, size in pieces for target in range(start + 1, start + size)]
    assert targets == list(range(1, length)) and all(size <= capacity for _, size in pieces)
    assert packer.cropped == 0


def test_a_larger_buffer_crops_less(make_documents):
    lengths = np.random.default_rng(0).lognormal(3, 1, 3000).astype(int).clip(2, 400).tolist()
    made = make_documents({"train": [np.concatenate(documents(lengths)) % 60_000], "val": [np.zeros(99)]})
    fractions = []
    for buffer in (1, 10, 300):
        train = best_fit(made.path, 64, 4, buffer=buffer, long_documents="cut", prefetch=0).train
        assert train.cropped_fraction() == 0
        for _ in range(100):
            next(train)
        again = best_fit(made.path, 64, 4, buffer=buffer, long_documents="cut", prefetch=0).train
        again.load_state_dict(train.state_dict())
        assert again.cropped_fraction() == train.cropped_fraction() > 0
        fractions.append(train.cropped_fraction())
    assert fractions == sorted(fractions, reverse=True) and fractions[-1] < fractions[0] - 0.1


def test_rows_after_end_tokens_begin_with_the_end_token(make_documents):
    text = np.r_[1:6, 0, 11:14, 0, 21:30, 0]
    made = make_documents({"train": [text[:8], text[8:]], "val": [text]}, at="end")
    splits = best_fit(made.path, 9, 1, buffer=3, prefetch=0)
    for loader in (splits.train, splits.val):
        # documents with the end token before them: 6, 4 and 11 tokens (the last also holds the end token of the split)
        assert rows_of(loader, 2) == [[0, 1, 2, 3, 4, 5, 0, 11, 12, 13], [0, 21, 22, 23, 24, 25, 26, 27, 28, 29]]


def test_masks_follow_their_tokens(make_documents):
    parts = parts_of([[5, 9, 3, 14, 2], [8, 8, 30]])
    masks = [part % 3 == 1 for part in parts]
    made = make_documents({"train": parts, "val": parts}, masks={"train": masks, "val": masks})
    for loss_on, loader in itertools.product(("mask", "all"), ("train", "val")):
        batch = next(getattr(best_fit(made.path, 8, 6, buffer=4, loss_on=loss_on), loader))
        whole = getattr(best_fit(made.path, 8, 6, buffer=4, loss_on="all"), loader)
        targets = next(whole).targets
        expected = torch.where(targets % 3 == 1, targets, -1) if loss_on == "mask" else targets
        assert torch.equal(batch.targets, expected) and (targets[:5] >= 0).all()


def test_the_order_of_shards_is_drawn_anew_every_epoch():
    orders = [shard_order(6, 1, epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders) and len({tuple(order) for order in orders}) == 4
    assert orders != [shard_order(6, 2, epoch) for epoch in range(4)] and shard_order(3, None, 7) == [0, 1, 2]


def test_what_cannot_be_is_explained(make_documents):
    made = make_documents({"train": [np.arange(1, 40)], "val": [np.zeros(99)]})
    with pytest.raises(DatasetError, match=r"split 'train': has no document.*nowhere in it"):
        next(best_fit(made.path, 4, 1).train)
    with pytest.raises(ValueError, match="long_documents is 'keep', expected one of wait, cut, split"):
        best_fit(made.path, 4, 1, long_documents="keep")
    with pytest.raises(ValueError, match="buffer is 0"):
        best_fit(made.path, 4, 1, buffer=0)
    continuous = make_documents({"train": [np.arange(40)], "val": [np.zeros(99)]}, at=None)
    with pytest.raises(DatasetError, match="one continuous text"):
        best_fit(continuous.path, 4, 1)
    val = best_fit(made.path, 4, 1).val
    state = val.state_dict()
    for change, message in (
        ({"buffered": None}, "no list `buffered`"),
        ({"rows": -1}, "no counts"),
        ({"buffer": 3}, "buffer = 3"),
        ({"shard": 9}, "shards 0 to 0"),
    ):
        with pytest.raises(ValueError, match=message):
            val.load_state_dict(state | change)
    assert rows_of(val, 1) == [[0] * 5]


@pytest.mark.parametrize("left", range(0, 120, 13))
def test_a_shard_that_shrinks_is_an_error_and_never_garbage(make_documents, left):
    made = make_documents({"train": [np.concatenate(documents([3] * 20))], "val": [np.zeros(99)]})
    train = best_fit(made.path, 4, 1, prefetch=0).train
    with open(made.path / "train_000000.bin", "r+b") as file:
        file.truncate(left)
    with pytest.raises(DatasetError, match=f"train_000000.bin: ends at byte {left}"):
        next(train)


def test_what_is_made_ahead_is_not_counted(make_documents):
    made = make_documents({"train": parts_of([[5, 9, 3, 14, 2] * 8]), "val": [np.zeros(99)]})
    ahead, alone = (best_fit(made.path, 6, 2, buffer=3, prefetch=depth).train for depth in (3, 0))
    for _ in range(4):
        next(ahead), next(alone)
        assert ahead.loader.cropped_fraction(ahead.state_dict()) == alone.cropped_fraction()


def test_after_a_failed_read_the_same_batch_is_tried_again(make_documents, monkeypatch):
    """No document is left out or doubled, whether the scan or the reading of rows failed."""
    monkeypatch.setattr(documents_module, "BLOCK_TOKENS", 16)
    made = make_documents({"train": parts_of([[5, 9, 3, 14, 2] * 8]), "val": [np.zeros(99)]})
    path = made.path / "train_000000.bin"
    whole = path.read_bytes()
    expected = rows_of(best_fit(made.path, 6, 2, buffer=3, prefetch=0).train, 40)
    train = best_fit(made.path, 6, 2, buffer=3, prefetch=0).train
    rows, failures = rows_of(train, 2), 0
    for size in range(0, len(whole) + 1, 2):
        path.write_bytes(whole[:size])
        before = train.state_dict()
        try:
            rows.extend(rows_of(train, 2))
        except DatasetError:
            failures += 1
            assert train.state_dict() == before
    while len(rows) < 40:
        rows.extend(rows_of(train, 2))
    assert failures > 5 and rows[:40] == expected

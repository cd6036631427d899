"""Mixtures: rows of several loaders in the shares that were asked for, in lock step on all ranks, resumed exactly."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, best_fit, mixture, packed_chat, random_windows
from gpt_data.tokenizers import CharTokenizer
from gpt_data.tokenizers.fingerprint import fingerprint

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def three(make_documents):
    """Datasets whose ids tell them apart: below 1000, from 1000, from 2000; of 300, 600 and 900 tokens."""
    return [
        make_documents({"train": [1000 * k + np.arange(300 * (k + 1))], "val": [1000 * k + np.arange(100)]}, at=None)
        for k in range(3)
    ]


def source_of(row):
    return int(row[0]) // 1000


def take(loader, count):
    return list(itertools.islice(loader, count))


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def weighted(datasets, weights, **options):
    return [{"dataset": d.path, "weight": w, **options} for d, w in zip(datasets, weights, strict=True)]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("weighted", [0.7, 0.2, 0.1]), ("uniform", [1 / 3] * 3), ("proportional", [1 / 6, 2 / 6, 3 / 6])],
)
def test_strategies_draw_their_shares(three, strategy, expected):
    """spec/scaling §4f. Weights are normalised; counts of 2000 rows are within four deviations."""
    train = mixture(weighted(three, [7, 2, 1]), 8, 20, strategy=strategy, prefetch=0).train
    rows = [source_of(row) for batch in take(train, 100) for row in batch.inputs]
    counts = np.bincount(rows, minlength=3)
    for count, share, stats in zip(counts, expected, train.stats(), strict=True):
        assert abs(count - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5
        assert stats["rows"] == count and stats["share"] == count / 2000
        assert stats["probability"] == pytest.approx(share)
    assert [stats["name"] for stats in train.stats()] == [str(d.path) for d in three]


def test_the_rows_of_a_source_are_those_of_its_loader(three):
    """In order, none left out; every source has a seed of its own."""
    train = mixture(weighted(three, [3, 1, 2]), 8, 5, seed=4, prefetch=0).train
    rows = [row for batch in take(train, 30) for row in batch.inputs]
    for number, dataset in enumerate(three):
        own = [row for row in rows if source_of(row) == number]
        alone = random_windows(dataset.path, 8, 1, seed=4 + number, prefetch=0).train
        assert len(own) > 10 and all(torch.equal(a, next(alone).inputs[0]) for a in own)


def test_all_ranks_take_from_the_same_sources_and_share_no_row(three):
    loaders = [mixture(weighted(three, [1, 1, 1]), 8, 4, rank, 3, prefetch=0).train for rank in range(3)]
    drawn = [[row for batch in take(loader, 10) for row in batch.inputs] for loader in loaders]
    assert len({tuple(map(source_of, rows)) for rows in drawn}) == 1
    assert len({json.dumps(loader.state_dict()) for loader in loaders}) == 1
    assert loaders[0].stats()[0]["rows"] % 3 == 0 and sum(s["rows"] for s in loaders[0].stats()) == 120
    for a, b in itertools.combinations(drawn, 2):
        assert sum(torch.equal(x, y) for x, y in zip(a, b, strict=True)) < 5


def documents_of(made_of, count):
    ids = [np.r_[0, made_of + np.arange(length - 1)] for length in itertools.islice(itertools.cycle([3, 9, 5]), count)]
    return np.concatenate(ids)


@few
@given(done=st.integers(0, 6), before=st.integers(1, 4), after=st.integers(1, 4), prefetch=st.integers(0, 2))
def test_a_state_continues_the_identical_rows_with_any_batch_size(make_documents, done, before, after, prefetch):
    """Of every kind of loader, on one of two ranks."""
    chat = documents_of(1, 40)
    chats = make_documents({"train": [chat], "val": [chat]}, masks={"train": [chat % 2], "val": [chat % 2]})
    plain = make_documents({"train": [documents_of(9000, 30)], "val": [documents_of(9000, 20)]})
    sources = [
        {"loader": "packed_chat", "dataset": chats.path, "weight": 2, "buffer": 3},
        {"loader": "best_fit", "dataset": plain.path, "weight": 1, "buffer": 5},
        {"loader": "sequential", "dataset": plain.path, "weight": 1},
        {"loader": "gpt_data.shuffled_windows", "dataset": plain.path, "weight": 1},
    ]

    def rows(loader, count):
        batches = take(loader, -(-count // loader.batch_shape[0]))
        pairs = [zip(b.inputs.tolist(), b.targets.tolist(), strict=True) for b in batches]
        return list(itertools.chain.from_iterable(pairs))[:count]

    straight = rows(mixture(sources, 8, 1, 1, 2, prefetch=0).train, done * before + 12)
    first = mixture(sources, 8, before, 1, 2, prefetch=prefetch).train
    assert rows(first, done * before) == straight[: done * before]
    state = json.loads(json.dumps(first.state_dict()))
    resumed = mixture(sources, 8, after, 1, 2, prefetch=prefetch).train
    rows(resumed, 3)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert rows(resumed, 12) == straight[done * before :]


def test_masks_stay_with_their_rows(make_documents):
    """A source without a mask counts whole beside one with a mask."""
    chat = documents_of(1, 40)
    masks = {"train": [chat % 2], "val": [chat % 2]}
    chats = make_documents({"train": [chat], "val": [chat]}, masks=masks)
    plain = make_documents({"train": [1000 + np.arange(99)], "val": [1000 + np.arange(99)]}, at=None)
    sources = weighted([chats, plain], [1, 1])
    for loss_on in ("mask", "all"):
        train = mixture(sources, 8, 20, loss_on=loss_on, prefetch=0).train
        batch = next(train)
        of_chat = batch.inputs.max(1).values < 1000
        assert of_chat.any() and not of_chat.all()
        assert (batch.targets[~of_chat] >= 1000).all()
        kept = batch.targets[of_chat]
        assert ((kept == -1) | (kept % 2 == 1)).all() if loss_on == "mask" else (kept >= 0).all()


def test_evaluation_is_the_same_for_every_seed_and_replays(three):
    sources = weighted(three, [3, 1, 2])
    val, other = (mixture(sources, 8, 5, seed=seed).val for seed in (1, 2))
    initial = val.state_dict()
    first = take(val, val.batches_per_epoch)
    assert equal(first, take(other, other.batches_per_epoch))
    val.load_state_dict(initial)
    assert equal(take(val, len(first)), first)
    # 12 windows of 8 in each of the three splits of 100 tokens, 36 rows in batches of 5
    assert len(first) == 8 and mixture(sources, 8, 5).test is None


def test_the_corpus_of_a_mixture(three, make_documents):
    splits = mixture(weighted(three, [3, 1, 0]), 8, 5)
    corpus = splits.dataset
    assert corpus.name == " + ".join(str(d.path) for d in three) and corpus.path is None
    assert corpus.vocab_size == 60_000 and corpus.load_tokenizer().name == "byte"
    assert corpus.digest != mixture(weighted(three[::-1], [3, 1, 0]), 8, 5).dataset.digest
    assert corpus.digest == mixture(weighted(three, [1, 1, 1]), 8, 5).dataset.digest


def test_different_vocabularies_are_named(make_documents):
    path = make_documents({"train": [np.arange(99)], "val": [np.arange(50)]}, at=None).path
    larger = make_documents({"train": [np.arange(99)], "val": [np.arange(50)]}, at=None, vocab_size=60_001).path
    other = make_documents({"train": [np.arange(99)], "val": [np.arange(50)]}, at=None)
    CharTokenizer("abc").save(other.path / "tokenizer")
    for wrong in (larger, other.path):
        sources = [{"dataset": path, "weight": 1, "name": "one"}, {"dataset": wrong, "weight": 1, "name": "two"}]
        with pytest.raises(ValueError, match=r"sources 'one' \(tokenizer byte, 60000 ids\) and 'two' \(.*different"):
            mixture(sources, 8, 2)


def test_fingerprints_tell_vocabularies_apart(three):
    assert fingerprint(three[0].load_tokenizer()) == fingerprint(three[1].load_tokenizer())
    assert fingerprint(CharTokenizer("ab")) != fingerprint(CharTokenizer("ba"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": -1}, "'x' has weight -1, expected a number from 0 on"),
        ({"weight": float("nan")}, "has weight nan"),
        ({"weight": float("inf")}, "has weight inf"),
        ({"weight": "1"}, "has weight '1'"),
        ({"weight": True}, "has weight True"),
        ({"weight": 0}, "the weights of x are all 0"),
        ({"loader": "nothing"}, "source 0 has loader 'nothing', which cannot be found"),
        ({"loader": "no.such.factory"}, "which cannot be found"),
        ({"loader": "Mixture"}, "is no data factory. Known: arithmetic, best_fit, "),
        ({"wieght": 2}, "source 0 has 'wieght', random_windows takes loader, name, weight, dataset"),
        ({"context_length": 9}, "source 0 has context_length, which is the whole mixture's"),
        ({"loader": "document_aligned"}, "hands out whole batches of packed documents (DocumentAligned)"),
    ],
)
def test_sources_that_are_not_understood(make_documents, change, message):
    made = make_documents({"train": [np.tile(np.arange(9), 30)], "val": [np.tile(np.arange(9), 30)]})
    with pytest.raises(ValueError, match=re.escape(message)):
        mixture([{"dataset": made.path, "weight": 1, "name": "x"} | change], 8, 2)


def test_what_else_cannot_be(three):
    path = three[0].path
    with pytest.raises(ValueError, match=r"sources is empty"):
        mixture([], 8, 2)
    with pytest.raises(ValueError, match=r"source 0 is 'stdlib', expected a dict"):
        mixture(["stdlib"], 8, 2)
    with pytest.raises(ValueError, match=r"has no weight. Give every source one"):
        mixture([{"dataset": path, "weight": 1}, {"dataset": path}], 8, 2)
    with pytest.raises(ValueError, match=r"source 0 has no dataset, which random_windows needs"):
        mixture([{"weight": 1}], 8, 2)
    with pytest.raises(ValueError, match=r"strategy is 'equal', expected one of weighted, uniform, proportional"):
        mixture([{"dataset": path}], 8, 2, strategy="equal")
    with pytest.raises(ValueError, match=r"'arithmetic' has no number of tokens.*Use strategy 'weighted'"):
        mixture([{"loader": "arithmetic", "max_samples": 100}], 16, 2, strategy="proportional")
    names = [s["name"] for s in mixture([{"dataset": path}] * 2, 8, 2, strategy="uniform", prefetch=0).train.stats()]
    assert names == [f"{path} (0)", f"{path} (1)"]


def test_a_state_of_another_mixture_is_refused(three):
    def build(weights=(1, 2, 3), rank=0, world_size=1, context=8, datasets=three):
        return mixture(weighted(datasets, weights), context, 2, rank, world_size, prefetch=0).train

    state = build().state_dict()
    for other, message in (
        (build((1, 2, 4)), "sources = "),
        (build(world_size=2), "world_size = 1, the loader has 2"),
        (build(context=9), "context_length"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
    for change, message in (
        ({"slots": None}, "no `slots`"),
        ({"counts": [1, 0, 0]}, "gave .1, 0, 0. of 0 rows"),
        ({"states": []}, "of 3 sources"),
        ({"counts": ["x", 0, 0]}, "counts = .*expected how many rows"),
        ({"counts": [1, -1, 0]}, "counts = .*expected how many rows"),
        ({"states": [{}, {}, {}]}, "source '.*': this loader state has"),
    ):
        with pytest.raises(ValueError, match=message):
            build().load_state_dict(state | change)


def test_shares_of_packed_loaders_in_yaml(make_documents):
    """A mixture as a configuration file gives it: plain lists, dicts, strings and numbers."""
    made = make_documents({"train": [documents_of(1, 40)], "val": [documents_of(1, 40)]})
    sources = json.loads(
        json.dumps(
            [{"loader": "best_fit", "dataset": str(made.path), "weight": 1, "buffer": 7, "long_documents": "cut"}]
        )
    )
    train = mixture(sources, 8, 3, prefetch=0).train
    alone = best_fit(made.path, 8, 1, buffer=7, long_documents="cut", prefetch=0).train
    assert torch.equal(next(train).inputs, torch.cat([next(alone).inputs for _ in range(3)]))
    assert packed_chat(made.path, 8, 1).val.batch_shape == (1, 8)


def test_a_refused_state_moves_no_source(three):
    train, other = (mixture(weighted(three, [1, 1, 1]), 8, 4, prefetch=0).train for _ in range(2))
    take(train, 5)
    here, there = train.state_dict(), other.state_dict()
    for own in ({}, 5, None):
        with pytest.raises(ValueError, match=r"source .*documents"):
            train.load_state_dict(there | {"states": [*there["states"][:2], own]})
        assert train.state_dict() == here


def test_what_is_made_ahead_is_not_counted(three):
    ahead, alone = (mixture(weighted(three, [1, 1, 1]), 8, 4, prefetch=depth).train for depth in (3, 0))
    for _ in range(4):
        next(ahead), next(alone)
        assert ahead.loader.stats(ahead.state_dict()) == alone.stats()


def test_after_a_failed_read_the_same_batch_is_tried_again(three):
    """The sources whose rows were read before the failure go back too."""
    train, other = (mixture(weighted(three, [1, 1, 1]), 8, 6, prefetch=0).train for _ in range(2))
    expected = take(other, 20)
    path, batches = three[1].path / "train_000000.bin", take(train, 1)
    whole = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="ends at byte"):
        while True:
            batches += take(train, 1)
    path.write_bytes(whole)
    assert equal(batches + take(train, 20 - len(batches)), expected)

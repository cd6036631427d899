"""Without replacement: every window once per epoch, whoever takes it, in an order and at places that change."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import shuffled_windows
from gpt_data.loaders.permutation import ROUNDS, Permutation

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(size=st.integers(1, 3000), keys=st.lists(st.integers(0, 2**64 - 1), min_size=ROUNDS, max_size=ROUNDS))
def test_a_permutation_takes_everything_once(size, keys):
    permutation = Permutation(size, keys)
    assert np.sort(permutation(np.arange(size))).tolist() == list(range(size))
    part = np.arange(size)[::3]
    assert permutation(part).tolist() == permutation(np.arange(size))[::3].tolist()


@pytest.mark.parametrize("size", [3, 17, 40])
def test_a_permutation_favours_nothing(size):
    """Where the first goes, and what follows it, over many keys: all places alike, within five deviations."""
    draws = 1000
    words = np.random.default_rng(0).integers(2**63, size=(draws, ROUNDS)).tolist()
    places = [Permutation(size, keys)(np.arange(2)).tolist() for keys in words]
    for counts, kinds in (
        (Counter(a for a, _ in places), size),
        (Counter((b - a) % size for a, b in places), size - 1),
    ):
        expected = draws / kinds
        assert len(counts) == kinds
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_a_permutation_of_a_trillion_is_near():
    size = 10**12
    out = Permutation(size, list(range(1, ROUNDS + 1)))(np.arange(100_000) + size // 2)
    assert len(set(out.tolist())) == 100_000 and out.max() < size
    assert abs(out.mean() / size - 0.5) < 0.01


def epoch_starts(path, context, seed, ranks, rows, epochs):
    """Position of every row that all ranks together take, in steps, in a corpus whose ids are positions."""
    loaders = [shuffled_windows(path, context, rows, rank, ranks, seed=seed, prefetch=0).train for rank in range(ranks)]
    windows = loaders[0].windows
    steps = -(-windows * epochs // (ranks * rows))
    seen = [b.inputs[:, 0].tolist() for _ in range(steps) for b in map(next, loaders)]
    return list(itertools.chain.from_iterable(seen)), windows


@few
@given(
    tokens=st.integers(8, 90),
    context=st.integers(1, 7),
    ranks=st.integers(1, 8),
    rows=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_every_target_once_per_epoch_at_any_number_of_ranks(make_documents, tokens, context, ranks, rows, seed):
    text = np.arange(tokens)
    made = make_documents({"train": np.array_split(text, 3), "val": [text]}, at=None)
    seen, windows = epoch_starts(made.path, context, seed, ranks, rows, epochs=2)
    for epoch in range(2):
        starts = seen[epoch * windows : (epoch + 1) * windows]
        offset = min(starts)
        assert sorted(starts) == [offset + k * context for k in range(windows)]  # touching, so each target once
        assert offset < context and windows * context > tokens - 2 * context - 1
    assert seen[: 2 * windows] == epoch_starts(made.path, context, seed, 1, 1, 2)[0]


def test_orders_and_offsets_change_with_the_epoch_and_the_seed(make_documents):
    made = make_documents({"train": [np.arange(2000)], "val": [np.arange(50)]}, at=None)
    epochs = []
    for seed in (0, 1):
        seen, windows = epoch_starts(made.path, 10, seed, 1, 1, epochs=8)
        epochs += [seen[k * windows : (k + 1) * windows] for k in range(8)]
    assert len({min(epoch) for epoch in epochs}) > 4
    orders = [tuple((start - min(epoch)) // 10 for start in epoch) for epoch in epochs]
    assert len(set(orders)) == 16
    for a, b in itertools.combinations(orders, 2):
        assert np.mean(np.equal(a, b)) < 0.1

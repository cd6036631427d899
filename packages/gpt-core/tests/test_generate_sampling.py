"""Sampling functions against plain-Python definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_core.generate.sampling import (
    Sampling,
    filtered_logits,
    keep_top_k,
    keep_top_p,
    penalize_repeats,
    sample,
)

logits_rows = st.lists(st.integers(-30, 30).map(lambda n: n / 4), min_size=2, max_size=12)


def kept(logits_BV):
    return [[i for i, x in enumerate(row) if x > -math.inf] for row in logits_BV.tolist()]


def nucleus_of(row, p):
    """Tokens by falling probability (ties by id) until they reach p together."""
    weights = [math.exp(x) for x in row]
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    total, chosen = 0.0, []
    for i in order:
        chosen.append(i)
        total += weights[i] / sum(weights)
        if total >= p:
            break
    return sorted(chosen)


@settings(max_examples=60, deadline=None)
@given(logits_rows, st.integers(1, 14))
def test_top_k_keeps_what_ties_with_the_kth(row, k):
    threshold = sorted(row, reverse=True)[min(k, len(row)) - 1]
    assert kept(keep_top_k(torch.tensor([row]), k)) == [[i for i, x in enumerate(row) if x >= threshold]]


@settings(max_examples=60, deadline=None)
@given(logits_rows, st.sampled_from([0.001, 0.137, 0.31, 0.77, 0.9401]))
def test_top_p_keeps_the_smallest_nucleus(row, p):
    logits = torch.tensor([row], dtype=torch.float64)
    assert kept(keep_top_p(logits, p)) == [nucleus_of(row, p)]


def test_top_p_edges():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64))
    assert kept(keep_top_p(logits, 1.0)) == [[0, 1, 2, 3]] * 2
    assert kept(keep_top_p(logits, 1e-9)) == [[0], [3]], "at least one token stays"
    assert kept(keep_top_p(logits, 0.5))[0] == [0], "reaching p exactly is enough"
    assert kept(keep_top_p(logits, 0.51)) == [[0, 1], [2, 3]]
    blocked = logits.masked_fill(torch.tensor([True, False, False, False]), -math.inf)
    assert 0 not in kept(keep_top_p(blocked, 0.9))[0], "a token that top-k removed does not come back"


def test_repetition_penalty_makes_both_signs_less_likely():
    logits = torch.tensor([[2.0, -2.0, 1.0, 0.0]])
    seen = torch.tensor([[True, True, False, True]])
    assert penalize_repeats(logits, seen, 4.0).tolist() == [[0.5, -8.0, 1.0, 0.0]]


def test_order_is_penalty_temperature_top_k():
    logits = torch.tensor([[4.0, 3.0, 1.0]])
    seen = torch.tensor([[True, False, False]])
    settings_ = Sampling(temperature=0.5, top_k=2, repetition_penalty=2.0)
    assert filtered_logits(logits, settings_, seen).tolist() == [[4.0, 6.0, -math.inf]]


@pytest.mark.parametrize("temperature", [0, 0.0, 9.9e-7])
def test_a_vanishing_temperature_is_greedy(temperature):
    logits = torch.tensor([[1e30, 2e30, -3e30], [0.0, -1.0, -2.0]])
    assert sample(logits, Sampling(temperature=temperature)).tolist() == [1, 0]


def test_samples_follow_the_filtered_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(20_000, 1)
    settings_ = Sampling(temperature=2.0, top_k=3)
    drawn = sample(logits, settings_, torch.Generator().manual_seed(0))
    expected = torch.softmax(torch.tensor([1.0, 0.5, 0.0]), 0)
    share = torch.bincount(drawn, minlength=4)[:4] / len(drawn)
    assert share[3] == 0
    torch.testing.assert_close(share[:3], expected, atol=0.015, rtol=0)  # 4 standard deviations


def test_the_generator_alone_decides():
    logits = torch.randn(50, 11, generator=torch.Generator().manual_seed(1))
    draws = [sample(logits, Sampling(), torch.Generator().manual_seed(seed)).tolist() for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]


def test_half_precision_logits_are_sampled_in_float32():
    logits = torch.tensor([[1.0, 1.001953125 * 8]], dtype=torch.bfloat16)
    assert filtered_logits(logits.float(), Sampling(temperature=3.0)).dtype == torch.float32
    assert sample(logits, Sampling(temperature=0)).tolist() == [1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
    ],
)
def test_settings_out_of_range_are_named(field, value):
    with pytest.raises(ValueError, match=rf"{field} must .*got {value}"):
        Sampling(**{field: value})

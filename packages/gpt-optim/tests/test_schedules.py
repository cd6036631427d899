"""Schedules against the published formulas and their exact figures."""

import itertools

import pytest

from gpt_optim import schedules


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 2.998501e-7), (1999, 5.997001e-4), (2000, 6e-4), (301_000, 3.3e-4), (600_001, 6e-5)],
)
def test_nanogpt_at_gpt2_settings(step, rate):
    schedule = schedules.nanogpt(learning_rate=6e-4, min_lr=6e-5, warmup_iters=2000, max_steps=600_000)
    assert 6e-4 * schedule(step) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(("step", "rate"), [(0, 9.900990e-6), (99, 9.900990e-4), (1050, 5.5e-4)])
def test_nanogpt_at_shakespeare_settings(step, rate):
    schedule = schedules.nanogpt(learning_rate=1e-3, min_lr=1e-4, warmup_iters=100, max_steps=5000, lr_decay_iters=2000)
    assert 1e-3 * schedule(step) == pytest.approx(rate, rel=1e-6)


def test_nanogpt_without_decay_is_constant():
    schedule = schedules.nanogpt(3e-5, min_lr=6e-5, warmup_iters=2000, max_steps=20, decay_lr=False)
    assert [schedule(step) for step in (0, 5, 20)] == [1.0, 1.0, 1.0]


def test_cosine_and_linear_values():
    cosine = schedules.cosine(max_steps=10, warmup_iters=2, end_factor=0.1)
    expected = [0, 0.5, 1, 0.96575, 0.8682, 0.72221, 0.55, 0.37779, 0.2318, 0.13425, 0.1, 0.1]
    assert [cosine(e) for e in range(12)] == pytest.approx(expected, abs=1e-5)
    linear = schedules.linear(max_steps=10, warmup_iters=2, end_factor=0.1)
    assert [linear(3), linear(9), linear(10)] == pytest.approx([0.8875, 0.2125, 0.1])


@pytest.mark.parametrize("cooldown", [{"cooldown_iters": 4}, {"cooldown_frac": 0.4}])
def test_constant_cools_down_without_a_jump_and_never_below_the_floor(cooldown):
    schedule = schedules.constant(max_steps=10, end_factor=0.1, **cooldown)
    values = [schedule(e) for e in range(14)]
    assert values[:7] == [1.0] * 7  # steps 0..5 hold, step 6 starts the cooldown at exactly 1
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert values[8] == pytest.approx(0.55)
    assert values[10:] == pytest.approx([0.1] * 4)


def test_lr_range_test_is_one_in_the_middle():
    schedule = schedules.lr_range_test(max_steps=10, range_coeff=5)
    assert [schedule(0), schedule(5), schedule(10)] == pytest.approx([0.08208, 1.0, 12.18249], rel=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.cosine(max_steps=5, warmup_iters=6), "warmup_iters"),
        (lambda: schedules.linear(max_steps=5, end_factor=2), "end_factor"),
        (lambda: schedules.constant(max_steps=5, cooldown_iters=2, cooldown_frac=0.5), "not both"),
        (lambda: schedules.constant(max_steps=5, warmup_iters=3, cooldown_iters=3), "exceed"),
        (lambda: schedules.nanogpt(1e-3, 2e-3, 1, 10), "min_lr"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

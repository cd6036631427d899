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


@pytest.mark.parametrize(("step", "rate"), [(0, 8.3916e-7), (714, 6e-4), (10_123, 3.3e-4), (19_531, 6e-5)])
def test_cosine_whose_warmup_starts_above_zero(step, rate):
    schedule = schedules.cosine(max_steps=19_531, warmup_iters=715, warmup_offset=1)
    assert 6e-4 * schedule(step) == pytest.approx(rate, rel=1e-5)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.025), (39, 1.0), (350, 1.0), (351, 0.998538), (675, 0.525), (1000, 0.05)]
)
def test_warmdown_of_nanochat(step, factor):
    schedule = schedules.constant(max_steps=1000, warmup_iters=40, cooldown_frac=0.65, end_factor=0.05, warmup_offset=1)
    assert schedule(step) == pytest.approx(factor, rel=1e-6)


def test_the_length_of_a_cooldown_is_rounded():
    """0.65 of 2,232 steps (depth 12 on 1e18 FLOPs) are 1,451, the last 781 before them flat, as in nanochat."""
    rate = schedules.constant(max_steps=2232, cooldown_frac=0.65)
    momentum = schedules.momentum(max_steps=2232, warmup_iters=0, peak=0.97, end=0.9, cooldown_frac=0.65)
    assert rate(781) == 1 > rate(782) and momentum(781) == 0.97 > momentum(782)


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.6), ("cosine", 0.6), ("sqrt", 0.2 + 0.8 * (1 - 0.5**0.5))])
def test_warmup_stable_decay_in_every_shape(shape, middle):
    schedule = schedules.warmup_stable_decay(100, 10, cooldown_iters=20, end_factor=0.2, shape=shape)
    assert [schedule(step) for step in (0, 5, 10, 79, 80)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert [schedule(step) for step in (90, 100, 1000)] == pytest.approx([middle, 0.2, 0.2])
    values = [schedule(step) for step in range(80, 101)]
    assert all(a > b for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        *[(0, 1.0), (504, 1.0), (505, 1.52), (681, 1.52), (682, 1.518297), (750, 1.402518), (1009, 0.961535)],
        *[(1010, 1.086990), (1262, 0.594472), (1514, 0.101954), (1515, 0.1), (1554, 0.1)],
    ],
)
def test_stages_of_the_speedrun(step, factor):
    assert schedules.stages(max_steps=1515)(step) == pytest.approx(factor, abs=5e-7)


def test_stages_without_a_cooldown_and_with_boundaries():
    schedule = schedules.stages(10, factors=(1.0, 2.0), boundaries=(3,), cooldown_frac=0.0)
    assert [schedule(step) for step in range(11)] == [1.0] * 3 + [2.0] * 8
    to_zero = schedules.stages(4, factors=(2.0,), cooldown_frac=1.0, end_factor=0.0)
    assert [to_zero(step) for step in (0, 1, 4, 9)] == [2.0, 1.5, 0.0, 0.0]


@pytest.mark.parametrize(("step", "value"), [(0, 0.85), (150, 0.90), (300, 0.95), (10_000, 0.95)])
def test_momentum_of_muon(step, value):
    assert schedules.momentum()(step) == pytest.approx(value)


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 0.85), (150, 0.90), (250, 0.933333), (300, 0.95), (1505, 0.95), (1514, 0.932), (1554, 0.852), (1600, 0.85)],
)
def test_momentum_of_the_speedrun(step, value):
    assert schedules.momentum(max_steps=1555, cooldown_iters=50)(step) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "value"), [(0, 0.85), (200, 0.91), (400, 0.97), (1000, 0.97), (1500, 0.935), (2000, 0.9)]
)
def test_momentum_that_falls_with_the_learning_rate(step, value):
    schedule = schedules.momentum(400, peak=0.97, max_steps=2000, cooldown_iters=1000, end=0.90)
    assert schedule(step) == pytest.approx(value)


def test_weight_decay_falls_to_zero():
    linear, cosine = schedules.weight_decay_linear(8), schedules.weight_decay_cosine(8)
    assert [linear(step) for step in (0, 2, 4, 8, 9)] == [1.0, 0.75, 0.5, 0.0, 0.0]
    assert [cosine(step) for step in (0, 2, 4, 8, 9)] == pytest.approx([1.0, 0.853553, 0.5, 0.0, 0.0])


def test_a_recipe_fits_runs_of_any_length():
    assert schedules.cosine(19531, warmup_iters=715, most_warmup=0.1)(714) == pytest.approx(714 / 715)
    short = schedules.cosine(1000, warmup_iters=715, warmup_offset=1, most_warmup=0.1)
    assert [short(0), short(99), short(1000)] == pytest.approx([0.01, 1.0, 0.1])
    rate = {"warmup_iters": 40, "warmup_offset": 1, "most_warmup": 0.1, "cooldown_frac": 0.65, "end_factor": 0.05}
    momentum = {"warmup_iters": 400, "peak": 0.97, "end": 0.9, "cooldown_frac": 0.65, "most_warmup": 0.3}
    for steps in range(60):
        assert 0.05 <= schedules.constant(steps, **rate)(steps // 2) <= 1.0
        assert 0.85 <= schedules.momentum(max_steps=steps, **momentum)(steps // 2) <= 0.97
    whole = schedules.momentum(max_steps=10_000, **momentum)
    assert [whole(step) for step in (0, 200, 400, 3500, 6750, 10_000)] == pytest.approx(
        [0.85, 0.91, 0.97, 0.97, 0.935, 0.9]
    )
    with pytest.raises(ValueError, match="most_warmup is a fraction"):
        schedules.cosine(10, warmup_iters=2, most_warmup=2)


def test_a_short_run_of_nanogpts_schedule_is_all_warm_up():
    """A few steps of a long configuration, to see whether it runs."""
    short = schedules.nanogpt(6e-4, 6e-5, warmup_iters=2000, max_steps=100)
    assert [short(0), short(99)] == pytest.approx([1 / 2001, 100 / 2001])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: schedules.cosine(max_steps=-1), "max_steps must not be negative, got -1"),
        (lambda: schedules.cosine(max_steps=5, warmup_iters=6), "warmup_iters"),
        (lambda: schedules.linear(max_steps=5, end_factor=2), "end_factor"),
        (lambda: schedules.linear(max_steps=5, warmup_offset=2), "warmup_offset"),
        (lambda: schedules.constant(max_steps=5, cooldown_iters=2, cooldown_frac=0.5), "not both"),
        (lambda: schedules.constant(max_steps=5, warmup_iters=3, cooldown_iters=3), "exceed"),
        (lambda: schedules.constant(max_steps=5, cooldown_iters=6), "cooldown must lie between 0 and max_steps=5"),
        (lambda: schedules.warmup_stable_decay(max_steps=5, shape="step"), "linear, cosine, sqrt, got 'step'"),
        (lambda: schedules.lr_range_test(max_steps=0), "max_steps"),
        (lambda: schedules.nanogpt(1e-3, 2e-3, 1, 10), "min_lr"),
        (lambda: schedules.nanogpt(1e-3, 1e-4, 10, 20, lr_decay_iters=10), "warmup_iters"),
        (lambda: schedules.stages(10, factors=(1.0, 0.0)), "factors must be positive"),
        (lambda: schedules.stages(10, factors=(1.0, 2.0), boundaries=(3, 5)), "2 factors need 1 of them, got"),
        (lambda: schedules.stages(10, factors=(1.0, 2.0, 3.0), boundaries=(5, 3)), "increasing"),
        (lambda: schedules.stages(10, cooldown_frac=1.5), "cooldown_frac"),
        (lambda: schedules.momentum(peak=1.0), "peak=1.0"),
        (lambda: schedules.momentum(warmup_iters=-1), "cannot be negative"),
        (lambda: schedules.momentum(cooldown_iters=5), "needs max_steps"),
        (lambda: schedules.momentum(warmup_iters=8, max_steps=10, cooldown_iters=5), "exceed max_steps=10"),
        (lambda: schedules.weight_decay_linear(-1), "max_steps"),
    ],
)
def test_impossible_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()

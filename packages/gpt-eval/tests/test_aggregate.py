"""Scores of suites by hand-worked numbers: chance removed, weights, what is missing."""

import math
from types import SimpleNamespace

import pytest

from gpt_eval import EvaluationError
from gpt_eval.aggregate import Benchmark, Category, Rule, aggregate
from gpt_eval.metrics import expected_calibration_error

A = Category("a", (Benchmark("x", 3, 0.25), Benchmark("y", 0, 0.0)))
B = Category("b", (Benchmark("z", 0, 0.5),))


def score(task, shots, accuracy, rows=100, partial=False):
    return SimpleNamespace(task=task, num_fewshot=shots, accuracy=accuracy, rows=rows, partial=partial)


ALL = [score("x", 3, 0.625), score("y", 0, 0.1, rows=4), score("z", 0, 0.25)]


def rule(**settings):
    return Rule(**{"categories": (A, B), "averages": {"core_average": ("a", "b")}, **settings})


def test_categories_and_their_average():
    found = aggregate(rule(), ALL)
    assert found["a"].score == pytest.approx((0.5 + 0.1) / 2)
    assert found["b"].score == -0.5  # worse than chance is negative, not clipped
    assert found["core_average"].score == pytest.approx(-0.1)
    assert (found["a"].coverage, found["a"].label, found["a"].partial) == ("2/2", "a", False)


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [("EQUAL", (1, 1)), ("SAMPLE_SZ", (100, 4)), ("LOG_SAMPLE_SZ", (math.log2(100), 2))],
)
def test_weights(weighting, weights):
    expected = (0.5 * weights[0] + 0.1 * weights[1]) / sum(weights)
    assert aggregate(rule(weighting=weighting), ALL)["a"].score == pytest.approx(expected)


def test_a_small_task_weighs_at_least_one():
    found = aggregate(rule(weighting="LOG_SAMPLE_SZ"), [score("x", 3, 0.625), score("y", 0, 0.1, rows=1)])
    assert found["a"].score == pytest.approx((0.5 * math.log2(100) + 0.1) / (math.log2(100) + 1))


def test_without_rescaling_and_without_baselines():
    assert aggregate(rule(rescale_accuracy=False), ALL)["a"].score == pytest.approx((0.375 + 0.1) / 2)
    plain = rule(rescale_accuracy=False, subtract_random_baseline=False)
    assert aggregate(plain, ALL)["a"].score == pytest.approx((0.625 + 0.1) / 2)


def test_a_category_without_one_of_its_benchmarks_falls_away_and_the_average_says_so():
    found = aggregate(rule(), ALL[1:])
    assert found["a"].score is None and found["a"].missing == ("x/3-shot",) and found["a"].coverage == "1/2"
    average = found["core_average"]
    assert (average.score, average.coverage, average.label) == (-0.5, "1/2", "core_average (partial 1/2)")


def test_other_shots_are_another_benchmark_and_a_longer_name_is_another_task():
    assert aggregate(rule(), [score("x", 30, 0.9), *ALL[1:]])["a"].score is None
    assert aggregate(rule(), [score("x_small", 3, 0.9), *ALL[1:]])["a"].score is None


def test_nothing_ran_is_no_score_and_not_zero():
    found = aggregate(rule(), [])
    assert found["core_average"].score is None and found["core_average"].coverage == "0/2"
    assert aggregate(rule(), [score("z", 0, None)])["b"].score is None


def test_core_is_the_mean_of_what_ran_and_says_of_how_many():
    core = Rule((Category("CORE", A.benchmarks + B.benchmarks, complete=False),))
    found = aggregate(core, ALL[:2])["CORE"]
    assert found.score == pytest.approx(0.3) and found.label == "CORE (partial 2/3)"
    assert aggregate(core, ALL)["CORE"].label == "CORE"
    some_rows = [*ALL[:2], score("z", 0, 0.5, partial=True)]
    assert aggregate(core, some_rows)["CORE"].label == "CORE (partial 3/3)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subtract_random_baseline": False}, "ask for both"),
        ({"averages": {"a": ("b",)}}, "is an average and a category"),
        ({"averages": {"mean": ("c",)}}, "unknown categories: c"),
        ({"weighting": "EQUALLY"}, "weighting is 'EQUALLY'"),
    ],
)
def test_rules_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(EvaluationError, match=message):
        rule(**settings)


def test_calibration_compares_with_the_midpoints_of_ten_bins():
    assert expected_calibration_error([], []) is None
    confidences, correct = [0.05, 0.31, 0.39, 1.0], [False, True, False, True]
    expected = (0.05 * 1 + abs(0.5 - 0.35) * 2 + abs(1 - 0.95) * 1) / 4
    assert expected_calibration_error(confidences, correct) == pytest.approx(expected)

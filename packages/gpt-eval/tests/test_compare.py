"""Comparisons: intervals and p-values against independent ways to get them, and refusals."""

import json
import math

import numpy as np
import pytest

from gpt_eval.compare import SavedResults, bootstrap, compare, comparison_table, load_results, mcnemar
from gpt_eval.errors import EvaluationError
from gpt_eval.samples import SampleWriter
from gpt_eval.task import Record

RNG = np.random.default_rng(7)
FIRST, SECOND = (RNG.random((2, 60)) < [[0.4], [0.6]]).astype(float)


def saved(
    tmp_path,
    name,
    grades,
    *,
    label="t/0-shot",
    protocol="foundry",
    categories=None,
    sha="s",
    baseline=0.25,
    dtype="float32",
):
    folder = tmp_path / name
    settings = {"has_categories": categories is not None}
    accuracy = float(np.nanmean(grades))
    task = {"label": label, "accuracy": accuracy, "baseline": baseline, "data_sha256": sha, "settings": settings}
    model = {"name": name, "dtype": dtype}
    records = {
        i: Record(i, float(grade), 0, 0, None if categories is None else categories[i])
        for i, grade in enumerate(grades)
    }
    header = {"model": model, "protocol": protocol, "versions": {}, "tasks": {}}
    SampleWriter(folder / "samples.jsonl", header, {label: records}).close()
    results = header | {"limit": None, "tasks": [task | {"rows": len(records)}]}
    (folder / "results.json").write_text(json.dumps(results))
    return load_results(folder)


def test_accuracies_wins_and_losses_are_counted_by_pairs(tmp_path):
    (found,) = compare(saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND))
    assert (found.first, found.second) == (FIRST.mean(), SECOND.mean())
    assert found.wins == sum(b > a for a, b in zip(FIRST, SECOND, strict=True))
    assert found.losses == sum(b < a for a, b in zip(FIRST, SECOND, strict=True))
    assert found.low < found.difference < found.high


def test_the_bootstrap_is_that_of_drawing_items(tmp_path):
    """Counts of distinct differences, drawn at once, have the distribution of items drawn one by one."""
    pairs = np.stack([FIRST, SECOND], axis=1)
    quick = bootstrap([pairs], np.random.default_rng(0), 20_000)
    rng, differences = np.random.default_rng(1), SECOND - FIRST
    slow = np.array([differences[rng.integers(60, size=60)].mean() for _ in range(20_000)])
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    np.testing.assert_allclose(
        np.quantile(quick, quantiles), np.quantile(slow, quantiles), atol=0.017
    )  # one item: 1/60
    assert quick.std() == pytest.approx(slow.std(), rel=0.03)
    assert quick.std() == pytest.approx(differences.std() / math.sqrt(60), rel=0.03)


def test_groups_count_the_same_whatever_their_size():
    large, small = np.tile([[0.0, 1.0]], (90, 1)), np.tile([[0.0, 0.0]], (10, 1))
    assert bootstrap([large, small], np.random.default_rng(0), 5) == pytest.approx([0.5] * 5)


def test_categories_are_averaged_as_the_accuracy_is(tmp_path):
    categories = ["x"] * 50 + ["y"] * 10
    arguments = {"categories": categories}
    (found,) = compare(saved(tmp_path, "a", FIRST, **arguments), saved(tmp_path, "b", SECOND, **arguments))
    assert found.second == pytest.approx((SECOND[:50].mean() + SECOND[50:].mean()) / 2)


@pytest.mark.parametrize("wins, losses, expected", [(0, 0, 1.0), (5, 0, 2 / 32), (8, 2, 2 * 56 / 1024), (3, 3, 1.0)])
def test_mcnemar_is_the_binomial_test(wins, losses, expected):
    assert mcnemar(wins, losses) == mcnemar(losses, wins) == pytest.approx(expected)


@pytest.mark.parametrize(("wins", "losses"), [(700, 301), (5200, 4900)])
def test_mcnemar_of_many_pairs_is_exact_too(wins, losses):
    n, least = wins + losses, min(wins, losses)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least + 1)]
    expected = 2 * math.fsum(math.exp(log - n * math.log(2)) for log in logs)
    assert mcnemar(wins, losses) == pytest.approx(expected, rel=1e-8)


def test_the_mean_of_several_tasks_is_of_centered_accuracies(tmp_path):
    def both(name, grades):
        one, two = (
            saved(tmp_path, name, grades),
            saved(tmp_path, name + "2", 1 - grades, label="u/0-shot", baseline=0.5),
        )
        tasks = [*one.results["tasks"], *two.results["tasks"]]
        return SavedResults(one.folder, one.results | {"tasks": tasks}, {**one.records, **two.records})

    *_, mean = compare(both("a", FIRST), both("b", SECOND))
    centered = [(FIRST.mean() - 0.25) / 0.75, (1 - FIRST.mean() - 0.5) / 0.5]
    assert mean.first == pytest.approx(sum(centered) / 2)
    assert mean.p_value is None and mean.n == 120


def test_items_without_a_grade_are_left_out_and_shares_have_no_p_value(tmp_path):
    (found,) = compare(saved(tmp_path, "a", [math.nan, 0.5, 1.0]), saved(tmp_path, "b", [1.0, 1.0, 1.0]))
    assert found.n == 2 and found.p_value is None and found.second == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "core"}, "different benchmarks"),
        ({"sha": "other"}, "data_sha256 differ"),
        ({"label": "u/0-shot"}, "no task in common"),
        ({"categories": ["x"] * 60}, "settings differ"),
    ],
)
def test_what_is_not_the_same_benchmark_is_refused(tmp_path, change, message):
    with pytest.raises(EvaluationError, match=message):
        compare(saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND, **change))


def test_other_items_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"60 items and .* 59, 59 of them the same"):
        compare(saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND[:59]))


def test_an_unfinished_evaluation_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"results\.json: no such file"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 50}, "it has 60 items of t/0-shot, expected 50"),
        ({"versions": {"torch": "9"}}, "versions is {} there"),
        ({"model": {"name": "before"}}, "model is"),
    ],
)
def test_results_beside_other_samples_are_refused(tmp_path, change, message):
    path = saved(tmp_path, "a", FIRST).folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EvaluationError, match=f"is not what results.json was made of: {message}"):
        load_results(path.parent)


def test_a_score_that_was_withdrawn_is_not_compared_and_named(tmp_path):
    first, second = saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND)
    second.results["tasks"][0]["accuracy"] = None
    assert compare(first, second) == []
    assert "not compared, for want of a score: t/0-shot" in comparison_table(first, second, [])


def test_different_dtypes_are_mentioned(tmp_path):
    first, second = saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND, dtype="bfloat16")
    found = compare(first, second)
    assert "dtypes differ (float32, bfloat16)" in comparison_table(first, second, found)
    assert "dtypes differ" not in comparison_table(first, first, found)


def test_the_table_marks_intervals_without_zero(tmp_path):
    first, second = saved(tmp_path, "a", [0] * 30), saved(tmp_path, "b", [1] * 30)
    line = comparison_table(first, second, compare(first, second)).splitlines()[-3]
    assert line.split() == [
        "t/0-shot",
        "30",
        "0.000",
        "1.000",
        "+1.000",
        "+1.000",
        "..",
        "+1.000",
        "30",
        "0",
        "1.86e-09",
        "*",
    ]

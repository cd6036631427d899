"""Is one model better than another? Differences on the same items, with intervals.

Both models saw the same items, so their mistakes are paired: what counts is where they differ. Intervals are a paired
bootstrap over items (Efron & Tibshirani 1993), p-values McNemar's exact test (McNemar 1947; binomial, two-sided).
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt_eval.errors import EvaluationError
from gpt_eval.samples import read_samples
from gpt_eval.task import Record

RESAMPLES = 10_000


@dataclass(frozen=True)
class SavedResults:
    """What an evaluation left on disk."""

    folder: Path
    results: Mapping[str, Any]
    """results.json."""
    records: Mapping[str, Mapping[int, Record]]
    """{label: {index: record}} of samples.jsonl."""

    @property
    def name(self) -> str:
        return str(self.results["model"]["name"])

    def task(self, label: str) -> Mapping[str, Any]:
        return next(task for task in self.results["tasks"] if task["label"] == label)


@dataclass(frozen=True)
class Difference:
    """How the second model does against the first on one task (or on the mean of several)."""

    label: str
    n: int
    first: float
    second: float
    """Accuracies; for several tasks means of centered accuracies."""
    low: float
    high: float
    """95 % interval of second - first."""
    wins: int
    losses: int
    """Items that only the second, or only the first, gets right."""
    p_value: float | None
    """McNemar's; None where items are graded in parts, and for several tasks."""

    @property
    def difference(self) -> float:
        return self.second - self.first


def load_results(folder: str | Path) -> SavedResults:
    """Reads a finished evaluation. Raises EvaluationError where there is none, or an unfinished one."""
    folder = Path(folder)
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        header, records = read_samples(folder / "samples.jsonl")
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{error.filename}: no such file; give the --output folder of a finished evaluation"
        ) from error
    except json.JSONDecodeError as error:
        raise EvaluationError(f"{folder / 'results.json'}:{error.lineno}: not JSON ({error.msg})") from error
    reason = _unfinished(results, header, records)
    if reason:
        raise EvaluationError(f"{folder}: samples.jsonl is not what results.json was made of: {reason}; evaluate again")
    return SavedResults(folder, results, records)


def _unfinished(
    results: Mapping[str, Any], header: Mapping[str, Any], records: Mapping[str, Mapping[int, Record]]
) -> str | None:
    """Why the samples are not those of the results, in words; None if they are."""
    for field in ("model", "protocol", "versions"):
        if results[field] != header.get(field):
            return f"{field} is {header.get(field)!r} there, {results[field]!r} here"
    for task in results["tasks"]:
        limit, found = results["limit"], len(records.get(task["label"], {}))
        expected = task["rows"] if limit is None else min(limit, task["rows"])
        if found != expected:
            return f"it has {found} items of {task['label']}, expected {expected}"
    return None


def compare(first: SavedResults, second: SavedResults, *, seed: int = 0) -> list[Difference]:
    """Differences on the tasks that both have, and last on the mean of their centered accuracies.

    A task that one of them has no score for is left out, whatever its items say.

    Raises EvaluationError for different protocols, for a task with other settings or data, for other items, and where
    no task is common.
    """
    protocols = first.results["protocol"], second.results["protocol"]
    if protocols[0] != protocols[1]:
        raise EvaluationError(
            f"{first.folder} has protocol {protocols[0]} and {second.folder} {protocols[1]}: "
            "these are different benchmarks; evaluate both alike"
        )
    theirs = {task["label"] for task in second.results["tasks"]}
    labels = [task["label"] for task in first.results["tasks"] if task["label"] in theirs]
    if not labels:
        raise EvaluationError(f"{first.folder} and {second.folder} have no task in common")
    rng = np.random.default_rng(seed)
    found, means, baselines = [], [], []
    for label in labels:
        _check_same_items(first, second, label)
        scored = all(side.task(label)["accuracy"] is not None for side in (first, second))
        pairs = _pairs(first, second, label) if scored else {}
        if pairs:
            resampled = bootstrap(list(pairs.values()), rng)
            found.append(_difference(label, pairs, resampled))
            means.append(resampled)
            baselines.append(float(first.task(label)["baseline"]))
    if len(found) > 1:
        found.append(_mean_of(found, means, baselines))
    return found


def _check_same_items(first: SavedResults, second: SavedResults, label: str) -> None:
    one, two = first.task(label), second.task(label)
    for field in ("data_sha256", "settings"):
        if one[field] != two[field]:
            raise EvaluationError(
                f"{label}: {field} differ between {first.folder} and {second.folder}; evaluate both alike"
            )
    mine, theirs = first.records.get(label, {}).keys(), second.records.get(label, {}).keys()
    if mine != theirs:
        raise EvaluationError(
            f"{label}: {first.folder} has {len(mine)} items and {second.folder} {len(theirs)}, {len(mine & theirs)} of "
            "them the same; evaluate both with one limit"
        )


def _pairs(first: SavedResults, second: SavedResults, label: str) -> dict[str, np.ndarray]:
    """{category: (n, 2) grades of both models}; items that one of them has no grade for are left out."""
    groups: dict[str, list[tuple[float, float]]] = {}
    by_category = first.task(label)["settings"].get("has_categories")
    for index, record in sorted(first.records[label].items()):
        grades = record.correct, second.records[label][index].correct
        if not any(map(math.isnan, grades)):
            groups.setdefault((record.category or "") if by_category else "", []).append(grades)
    return {name: np.array(grades) for name, grades in groups.items()}


def bootstrap(groups: Sequence[np.ndarray], rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """(resamples,) differences second - first of means over items, averaged over groups, items drawn with replacement.

    groups: (n, 2) grades each. Drawn as counts of each distinct difference, which is the same and costs no n.
    """
    totals = np.zeros(resamples)
    for grades in groups:
        values, counts = np.unique(grades[:, 1] - grades[:, 0], return_counts=True)
        drawn = rng.multinomial(len(grades), counts / len(grades), size=resamples)
        totals += drawn @ values / len(grades)
    return totals / len(groups)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided p-value that wins and losses are equally likely: 2 P(X <= min), X ~ Binomial(wins + losses, ½)."""
    n, term, total = wins + losses, 1, 0
    for k in range(min(wins, losses) + 1):
        total += term  # n over k
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def _difference(label: str, groups: Mapping[str, np.ndarray], resampled: np.ndarray) -> Difference:
    first, second = np.mean([grades.mean(axis=0) for grades in groups.values()], axis=0)
    grades = np.concatenate(list(groups.values()))
    wins, losses = int((grades[:, 1] > grades[:, 0]).sum()), int((grades[:, 1] < grades[:, 0]).sum())
    low, high = np.quantile(resampled, [0.025, 0.975])
    whole = bool(np.isin(grades, (0.0, 1.0)).all())
    p_value = mcnemar(wins, losses) if whole else None
    return Difference(label, len(grades), float(first), float(second), float(low), float(high), wins, losses, p_value)


def _mean_of(found: Sequence[Difference], resampled: Sequence[np.ndarray], baselines: Sequence[float]) -> Difference:
    """The mean of centered accuracies; tasks are resampled independently, the set of tasks is fixed."""
    scales = [1 / (1 - baseline) for baseline in baselines]
    draws = np.mean([values * scale for values, scale in zip(resampled, scales, strict=True)], axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    centered = [
        [(value - baseline) * scale for value in (one.first, one.second)]
        for one, baseline, scale in zip(found, baselines, scales, strict=True)
    ]
    first, second = np.mean(centered, axis=0)
    return Difference(
        f"mean of {len(found)} (centered)",
        sum(one.n for one in found),
        float(first),
        float(second),
        float(low),
        float(high),
        sum(one.wins for one in found),
        sum(one.losses for one in found),
        None,
    )


def comparison_table(first: SavedResults, second: SavedResults, differences: Sequence[Difference]) -> str:
    """Lines of text: one task each; a star where the interval leaves out 0."""
    from gpt_eval.report.table import aligned

    header = ("task", "n", "first", "second", "difference", "95 %", "wins", "losses", "p", "")
    lines = [
        (
            one.label,
            str(one.n),
            f"{one.first:.3f}",
            f"{one.second:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} .. {one.high:+.3f}",
            str(one.wins),
            str(one.losses),
            "" if one.p_value is None else f"{one.p_value:.3g}",
            "*" if one.low > 0 or one.high < 0 else "",
        )
        for one in differences
    ]
    names = f"first   {first.name} ({first.folder})\nsecond  {second.name} ({second.folder})"
    legend = (
        "difference: second - first. 95 %: paired bootstrap over items; * where it leaves out 0. p: McNemar, exact; "
        "where it and the star disagree there are too few items."
    )
    notes = _notes(first, second, {one.label for one in differences})
    return "\n".join(
        [names, f"protocol {first.results['protocol']}", *notes, "", *aligned([header, *lines]), "", legend]
    )


def _notes(first: SavedResults, second: SavedResults, shown: Collection[str]) -> list[str]:
    """Lines on what a reader of the differences must know."""
    notes = []
    one, two = (side.results["model"].get("dtype") for side in (first, second))
    if one != two:
        notes.append(f"dtypes differ ({one or 'unknown'}, {two or 'unknown'}): rounding alone flips some predictions")
    theirs = {task["label"] for task in second.results["tasks"]}
    common = [task["label"] for task in first.results["tasks"] if task["label"] in theirs]
    if unscored := [label for label in common if label not in shown]:
        notes.append(f"not compared, for want of a score: {', '.join(unscored)}")
    return notes

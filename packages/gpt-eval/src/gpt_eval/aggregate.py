"""From the scores of tasks to those of a suite: chance removed, categories, averages, and what is missing.

Foundry's rules (eval_gauntlet_callback): a benchmark counts as (accuracy - baseline) / (1 - baseline), a category is
the weighted mean of its benchmarks and falls away if one of them is missing, an average is the mean of the categories
that are left. CORE and ChatCORE are plain means. Where nothing was run there is no score (the original says 0), and
every score says how much of it is there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from gpt_eval.errors import EvaluationError

Weighting = Literal["EQUAL", "SAMPLE_SZ", "LOG_SAMPLE_SZ"]


class Score(Protocol):
    """What aggregation reads of a task's result."""

    @property
    def task(self) -> str: ...
    @property
    def num_fewshot(self) -> int: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def rows(self) -> int: ...
    @property
    def partial(self) -> bool: ...


@dataclass(frozen=True)
class Benchmark:
    """A task as a category counts it: by name and number of shots; other shots are another benchmark."""

    name: str
    num_fewshot: int
    baseline: float


@dataclass(frozen=True)
class Category:
    """Benchmarks that make one score.

    complete: without all of its benchmarks there is no score (foundry); otherwise the mean of those that ran, which is
    called partial (CORE, ChatCORE).
    """

    name: str
    benchmarks: tuple[Benchmark, ...]
    complete: bool = True


@dataclass(frozen=True)
class Rule:
    """How a suite makes scores of scores."""

    categories: tuple[Category, ...] = ()
    averages: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    """{name: categories that it is the mean of}."""
    weighting: Weighting = "EQUAL"
    subtract_random_baseline: bool = True
    rescale_accuracy: bool = True
    source: str = ""
    """Of the baselines, for the result."""
    protocol: str = ""
    """Whose conventions the names of the scores promise; "" for names that promise none."""

    def __post_init__(self) -> None:
        names = {category.name for category in self.categories}
        if self.rescale_accuracy and not self.subtract_random_baseline:
            raise EvaluationError("rescale_accuracy divides by what subtract_random_baseline leaves; ask for both")
        if self.weighting not in ("EQUAL", "SAMPLE_SZ", "LOG_SAMPLE_SZ"):
            raise EvaluationError(f"weighting is {self.weighting!r}, expected EQUAL, SAMPLE_SZ or LOG_SAMPLE_SZ")
        for name, members in self.averages.items():
            if name in names:
                raise EvaluationError(f"{name!r} is an average and a category; give one of them another name")
            if unknown := set(members) - names:
                raise EvaluationError(f"the average {name!r} is over unknown categories: {', '.join(sorted(unknown))}")


@dataclass(frozen=True)
class Average:
    """The score of a category, or of an average over categories."""

    name: str
    score: float | None
    """None: nothing to make it of."""
    coverage: str
    """k/m: benchmarks that ran, of those that it needs; categories, for an average over them."""
    partial: bool
    """Something is missing, or was run on a part of its rows."""
    label: str
    """The name, with what is missing; print this."""
    missing: tuple[str, ...]
    members: Mapping[str, float]
    """What the score is the mean of."""

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "members": dict(self.members), "missing": list(self.missing)}


def aggregate(rule: Rule, scores: Sequence[Score]) -> dict[str, Average]:
    """The categories and averages of a suite, in the order of the rule."""
    by_key = {(score.task, score.num_fewshot): score for score in scores if score.accuracy is not None}
    found = {category.name: _category(rule, category, by_key) for category in rule.categories}
    for name, members in rule.averages.items():
        found[name] = _over(name, [found[member] for member in members])
    return found


def benchmark_score(rule: Rule, accuracy: float, baseline: float) -> float:
    """A benchmark as its category counts it."""
    if not rule.subtract_random_baseline:
        return accuracy
    return (accuracy - baseline) / (1.0 - baseline) if rule.rescale_accuracy else accuracy - baseline


def weight(weighting: Weighting, rows: int) -> float:
    """Of a benchmark with so many rows."""
    if weighting == "EQUAL":
        return 1.0
    return max(float(rows), 1.0) if weighting == "SAMPLE_SZ" else max(math.log2(max(rows, 1)), 1.0)


def _category(rule: Rule, category: Category, by_key: Mapping[tuple[str, int], Score]) -> Average:
    members, weights, missing, partial = {}, [], [], False
    for benchmark in category.benchmarks:
        label = f"{benchmark.name}/{benchmark.num_fewshot}-shot"
        result = by_key.get((benchmark.name, benchmark.num_fewshot))
        if result is None or result.accuracy is None:
            missing.append(label)
            continue
        members[label] = benchmark_score(rule, result.accuracy, benchmark.baseline)
        weights.append(weight(rule.weighting, result.rows))
        partial = partial or result.partial
    total = math.fsum(w * s for w, s in zip(weights, members.values(), strict=True))
    dropped = not members or (category.complete and bool(missing))
    score = None if dropped else total / math.fsum(weights)
    return _average(category.name, score, members, missing, partial, len(category.benchmarks))


def _over(name: str, categories: Sequence[Average]) -> Average:
    members = {category.name: category.score for category in categories if category.score is not None}
    missing = [category.name for category in categories if category.score is None]
    partial = any(category.partial for category in categories)
    score = math.fsum(members.values()) / len(members) if members else None
    return _average(name, score, members, missing, partial, len(categories))


def _average(
    name: str, score: float | None, members: Mapping[str, float], missing: Sequence[str], partial: bool, needed: int
) -> Average:
    coverage = f"{len(members)}/{needed}"
    partial = partial or bool(missing)
    label = f"{name} (partial {coverage})" if partial else name
    return Average(name, score, coverage, partial, label, tuple(missing), MappingProxyType(dict(members)))

"""What an evaluation found: one `TaskResult` per task, and the suite's averages."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt_eval.metrics import centered_accuracy
from gpt_eval.strict_json import plain, write_json
from gpt_eval.task import ProtocolName, Record, Task

FORMAT = 1
CHOICE_TYPES = frozenset({"multiple_choice", "schema", "chat_choice"})
"""Types whose gold is one of the choices: their baseline is a guess, and the most frequent gold a better one."""


@dataclass(frozen=True)
class TaskResult:
    """The score of one task with all that makes it that score."""

    task: str
    label: str
    type: str
    category: str
    num_fewshot: int
    n: int
    """Items with a grade."""
    rows: int
    """Items of the file."""
    accuracy: float | None
    """Mean over items, or over the means of categories where the task has them; None: nothing could be graded."""
    stderr: float | None
    """Of the mean: sample standard deviation / √n."""
    baseline: float
    centered: float | None
    """(accuracy - baseline) / (1 - baseline)."""
    majority_rate: float | None
    """Accuracy of always giving the most frequent gold answer, where answers are choices."""
    n_truncated: int
    n_unscored: int
    unscored: Mapping[str, int]
    """Why items could not be scored, and how many."""
    metrics: Mapping[str, float]
    """Means of further metrics."""
    categories: Mapping[str, Mapping[str, float]]
    """{category: {n, accuracy}} for tasks that have them."""
    partial: bool
    """Not all rows, or not all rows of the published file."""
    data_sha256: str
    settings: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only its type knows (intervals, labels, failures)."""


def summarize(
    task: Task, records: Sequence[Record], *, rows: int, data_sha256: str, details: Mapping[str, Any], partial: bool
) -> TaskResult:
    """A task's score from the records of its items, whatever their order.

    rows: of the whole file; fewer records mean a partial result. details: from the type's `summarize`, where an
    "accuracy" replaces the mean (None: there is no score).
    """
    records = sorted(records, key=lambda record: record.index)
    graded = [record for record in records if not math.isnan(record.correct)]
    split = task.has_categories and any(record.category is not None for record in graded)  # "foundry" only
    categories = _by_category(graded) if split else {}
    accuracy, stderr = _mean(categories, [record.correct for record in graded])
    details = dict(details)
    if "accuracy" in details:
        accuracy = details.pop("accuracy")
        stderr = details.pop("stderr", None)
    reasons = Counter(record.unscored for record in records if record.unscored)
    scale = accuracy is not None and 0.0 <= accuracy <= 1.0
    return TaskResult(
        task=task.name,
        label=task.label,
        type=task.type,
        category=task.category,
        num_fewshot=task.num_fewshot,
        n=len(graded),
        rows=rows,
        accuracy=accuracy,
        stderr=stderr,
        baseline=task.baseline,
        centered=centered_accuracy(accuracy, task.baseline) if scale and accuracy is not None else None,
        majority_rate=_majority_rate(records) if task.type in CHOICE_TYPES else None,
        n_truncated=sum(record.truncated for record in records),
        n_unscored=sum(reasons.values()),
        unscored=dict(sorted(reasons.items())),
        metrics=_metric_means(graded),
        categories={name: {"n": len(values), "accuracy": _average(values)} for name, values in categories.items()},
        partial=partial or len(graded) < rows,
        data_sha256=data_sha256,
        settings=settings_of(task),
        details=details,
    )


def settings_of(task: Task) -> dict[str, Any]:
    """A task as JSON values; the judge by its name."""
    values = {name: getattr(task, name) for name in Task.__dataclass_fields__ if name != "options"}
    options = {key: getattr(value, "id", "") if key == "judge" else value for key, value in task.options.items()}
    return plain(values | {"options": options})


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance_of_mean(values: Sequence[float]) -> float | None:
    """Sample variance / n; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = _average(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)


def _mean(categories: Mapping[str, Sequence[float]], values: Sequence[float]) -> tuple[float | None, float | None]:
    """(accuracy, its standard error); over categories, each counts the same."""
    if not values:
        return None, None
    groups = list(categories.values()) or [values]
    variances = [variance for variance in map(_variance_of_mean, groups) if variance is not None]
    stderr = math.sqrt(math.fsum(variances)) / len(groups) if len(variances) == len(groups) else None
    return _average([_average(group) for group in groups]), stderr


def _by_category(records: Sequence[Record]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for record in records:
        groups[record.category or ""].append(record.correct)
    return dict(sorted(groups.items()))


def _majority_rate(records: Sequence[Record]) -> float | None:
    if not records:
        return None
    return Counter(repr(record.gold) for record in records).most_common(1)[0][1] / len(records)


def _metric_means(records: Sequence[Record]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in record.metrics.items():
            if not math.isnan(value):
                values[name].append(value)
    return {name: _average(values[name]) for name in sorted(values)}


@dataclass(frozen=True)
class Results:
    """All that one evaluation found. `as_json` is what results.json holds."""

    model: Mapping[str, Any]
    protocol: ProtocolName
    suite: str
    tasks: tuple[TaskResult, ...]
    averages: Mapping[str, Any]
    """{name: {"score", "coverage", "partial", "label", ...}} of the suite; empty for a plain list of tasks."""
    missing: tuple[str, ...]
    """Tasks of the suite that the bundle has no data for."""
    limit: int | None
    bundle: str
    versions: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Judge, code execution, time."""
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict, repr=False, compare=False)
    """{label: records by index}; in samples.jsonl, not in results.json."""

    def __getitem__(self, name: str) -> TaskResult:
        """The result of a task by its name or label; KeyError that lists what there is."""
        for result in self.tasks:
            if name in (result.task, result.label):
                return result
        raise KeyError(f"no result for {name!r}; there are {', '.join(result.label for result in self.tasks)}")

    def as_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("records", "tasks")}
        return {"format": FORMAT, **fields, "tasks": [asdict(result) for result in self.tasks]}

    def save(self, folder: Path) -> Path:
        """Writes `folder`/results.json."""
        write_json(folder / "results.json", self.as_json())
        return folder / "results.json"

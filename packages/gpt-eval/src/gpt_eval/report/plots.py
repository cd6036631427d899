"""Pictures of results: bars of centered accuracies with intervals, a radar of categories. Needs gpt-eval[plot]."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_eval.errors import EvaluationError
from gpt_eval.results import Results, TaskResult

COLORS = ("#2f6fb0", "#d9622b", "#3f8f5b", "#8a5fb0", "#8a8f98", "#b0902f")
DPI = 130


def plot_bars(results: Sequence[Results], path: Path) -> Path:
    """One bar per task and model: centered accuracy, with 95 % intervals. Raises EvaluationError without any."""
    labels = list(dict.fromkeys(task.label for one in results for task in one.tasks if task.centered is not None))
    if not labels:
        raise EvaluationError("no task has a score to draw")
    figure, axes = _figure((8, 1.2 + 0.28 * len(labels) * max(1, len(results) / 2)))
    height = 0.8 / len(results)
    for place, one in enumerate(results):
        found = {task.label: task for task in one.tasks if task.centered is not None}
        shown = [(row, found[label]) for row, label in enumerate(labels) if label in found]
        axes.barh(
            [row + (place - (len(results) - 1) / 2) * height for row, _ in shown],
            [task.centered for _, task in shown],
            height * 0.9,
            xerr=[1.96 * (task.stderr or 0.0) / (1 - task.baseline) for _, task in shown],
            color=COLORS[place % len(COLORS)],
            ecolor="#555555",
            label=_name(one),
        )
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="#555555", linewidth=0.8)
    axes.set_xlabel("centered accuracy: 0 = guessing, 1 = all right")
    _title(axes, results)
    return _save(figure, path)


def plot_radar(results: Sequence[Results], path: Path) -> Path | None:
    """Mean centered accuracy of each category, around a circle; None where there are fewer than three categories.

    The centre is the lowest value or 0, whichever is lower; tasks without a score are left out, so a category here is
    a mean of what was run, not the suite's own average.
    """
    means = [category_means(one.tasks) for one in results]
    names = list(dict.fromkeys(name for found in means for name in found))
    names = [name for name in names if all(name in found for found in means)]
    if len(names) < 3:
        return None
    figure, axes = _figure((6, 5.6), subplot_kw={"projection": "polar"})
    angles = [2 * math.pi * place / len(names) for place in range(len(names))]
    for place, (one, found) in enumerate(zip(results, means, strict=True)):
        values = [found[name] for name in names]
        color = COLORS[place % len(COLORS)]
        axes.plot([*angles, angles[0]], [*values, values[0]], color=color, linewidth=1.8, label=_name(one))
        axes.fill([*angles, angles[0]], [*values, values[0]], color=color, alpha=0.12)
    lowest = min(min(found[name] for name in names) for found in means)
    highest = max(max(found[name] for name in names) for found in means)
    axes.set_ylim(min(lowest, 0.0) - 0.02, max(highest, 0.05) * 1.05)
    axes.set_xticks(angles, [name.replace("_", "\n") for name in names], fontsize=8)
    axes.tick_params(axis="y", labelsize=7)
    _title(axes, results)
    return _save(figure, path)


def category_means(tasks: Sequence[TaskResult]) -> Mapping[str, float]:
    """{category: mean centered accuracy} of the tasks that have both."""
    groups: dict[str, list[float]] = {}
    for task in tasks:
        if task.category and task.centered is not None:
            groups.setdefault(task.category, []).append(task.centered)
    return {name: math.fsum(values) / len(values) for name, values in groups.items()}


def _name(results: Results) -> str:
    partial = " (partial)" if any(task.partial for task in results.tasks) else ""
    return f"{results.model['name']}{partial}".replace("$", r"\$")


def _title(axes: Any, results: Sequence[Results]) -> None:
    axes.set_title(f"{results[0].suite}, protocol {results[0].protocol}", loc="left", fontsize=10, pad=14)
    axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1.0, 1.12 if len(results) == 1 else 1.2))


def _figure(figsize: tuple[float, float], **settings: Any) -> tuple[Any, Any]:
    """(figure, its axes), without a screen and without pyplot's global state."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "gpt-eval[plot]"') from error
    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(**settings)


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path

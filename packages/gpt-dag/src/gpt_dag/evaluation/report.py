"""Scores as a table for people and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gpt_dag.evaluation.exact import Scores
from gpt_dag.evaluation.intervals import Rate
from gpt_dag.evaluation.items import Item

Rows = list[tuple[str, ...]]


def accuracy_table(scores: Scores, baselines: Mapping[str, Scores]) -> str:
    """Exact answers by number of operations and by style, with 95 % intervals, beside what the baselines score."""
    header = ("", "n", "exact", "95 %", "no answer", *baselines)
    rows: Rows = []
    for label, kept in _groups(scores):
        rate = scores.of(kept)
        if rate.n:
            low, high = rate.interval
            shares = [_percent(base.of(kept)) for base in baselines.values()]
            interval = f"{100 * low:.1f} to {100 * high:.1f}"
            rows.append((label, str(rate.n), _percent(rate), interval, str(scores.invalid(kept).hits), *shares))
    return table(header, rows)


def _groups(scores: Scores) -> Iterator[tuple[str, Callable[[Item], bool]]]:
    for n in scores.by_ops():
        yield f"{n} operation{'s' * (n != 1)}", lambda item, n=n: item.n_ops == n
    for style in scores.by_style():
        yield style, lambda item, style=style: item.style == style
    yield "1-4 operations", lambda item: item.n_ops is not None and 1 <= item.n_ops <= 4
    yield "5-8 operations", lambda item: item.n_ops is not None and 5 <= item.n_ops <= 8
    yield "all", lambda item: True


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others to the right."""
    every = [header, *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(header))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in every]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _percent(rate: Rate) -> str:
    return "n/a" if rate.value is None else f"{100 * rate.value:.1f} %"


def accuracy_plot(
    rates: Mapping[str, Mapping[int, Rate]], path: Path | str, longest_trained: int | None = None
) -> Path:
    """Exact answers over the number of operations, a line with 95 % intervals for each of `rates`.

    longest_trained: operations of the longest training examples, marked. ImportError where matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'gpt-core[report]'") from error
    matplotlib.use("Agg")  # files only: works without a display
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for name, by_ops in rates.items():
        shown = {n: rate for n, rate in by_ops.items() if rate.n}
        values = [100 * (rate.value or 0.0) for rate in shown.values()]
        bounds = [rate.interval for rate in shown.values()]
        below = [max(0.0, v - 100 * low) for v, (low, _) in zip(values, bounds, strict=True)]
        above = [max(0.0, 100 * high - v) for v, (_, high) in zip(values, bounds, strict=True)]
        axis.errorbar(list(shown), values, yerr=[below, above], fmt="o-", capsize=3, markersize=4, label=name)
    if longest_trained is not None:
        axis.axvline(longest_trained + 0.5, color="#8a8f98", linestyle=":")
        axis.annotate("longer than any training example", (longest_trained + 0.6, 2), color="#8a8f98", fontsize=9)
    axis.set(xlabel="operations", ylabel="exact answers (%)", ylim=(0, 102))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.legend(frameon=False)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path

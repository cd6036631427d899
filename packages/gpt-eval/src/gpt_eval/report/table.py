"""The scores as a table: every accuracy beside what guessing gets and how sure it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt_eval.results import Results, TaskResult

HEADER = ("task", "K", "n", "accuracy", "± se", "baseline", "majority", "centered", "truncated", "notes")
LEFT = frozenset({0, 9})
"""Columns of text; the others are numbers, set flush right."""


def table(results: Results) -> str:
    """Lines of text for a fixed-width font: one task each, below them the suite's averages."""
    lines = [f"{results.model['name']}   protocol {results.protocol}   {scope(results)}", ""]
    lines += aligned([HEADER, *rows(results)])
    averages = average_lines(results)
    if averages:
        lines += ["", *averages]
    if results.missing:
        lines += ["", f"no data in the bundle for {len(results.missing)}: {', '.join(results.missing)}"]
    return "\n".join(lines)


def scope(results: Results) -> str:
    """Which rows: all, or the first ones."""
    return f"suite {results.suite}" + (f"   first {results.limit} rows of each" if results.limit else "")


def rows(results: Results) -> list[tuple[str, ...]]:
    """One tuple of cells per task, in the columns of `HEADER`; categories of the suite stay together."""
    order = list(dict.fromkeys(result.category for result in results.tasks))
    return [_row(result) for category in order for result in results.tasks if result.category == category]


def _row(result: TaskResult) -> tuple[str, ...]:
    return (
        result.task,
        str(result.num_fewshot),
        str(result.n),
        number(result.accuracy),
        number(result.stderr),
        number(result.baseline),
        number(result.majority_rate),
        number(result.centered, signed=True),
        str(result.n_truncated) if result.n_truncated else "",
        "; ".join(remarks(result)),
    )


def remarks(result: TaskResult) -> list[str]:
    """What a reader must know about one score."""
    found = []
    if result.accuracy is None:
        found.append("no score")
    if result.partial:
        found.append("partial")
    if result.n_unscored:
        found.append(f"{result.n_unscored} unscored")
    if isinstance(label := result.details.get("label"), str):
        found.append(label)
    return found


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals; nothing for None."""
    if value is None:
        return ""
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def average_lines(results: Results) -> list[str]:
    """The suite's averages, each with its coverage; one that is partial is never shown under its plain name."""
    cells = [average_cells(name, average) for name, average in results.averages.items()]
    return aligned(cells)


def average_cells(name: str, average: Mapping[str, Any]) -> tuple[str, str, str]:
    """(name, score, coverage)."""
    score = average.get("score")
    text = "no score" if score is None else f"{score:+.4f}"
    return str(average.get("label", name)), text, str(average.get("coverage", ""))


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell, two spaces apart; the first and the last flush left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in LEFT else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]

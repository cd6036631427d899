"""report.md: results, how they came about, and what does not count as one."""

from collections.abc import Sequence
from pathlib import Path

from gpt_eval.report.table import HEADER, average_cells, number, rows, scope
from gpt_eval.results import Results, TaskResult


def write_report(results: Results, folder: Path, pictures: Sequence[Path] = ()) -> Path:
    """Writes `folder`/report.md; pictures are linked from it."""
    path = folder / "report.md"
    path.write_text(markdown(results, [picture.name for picture in pictures]), encoding="utf-8")
    return path


def markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    """The page as text."""
    parts = [f"# {results.model['name']}: {results.suite}\n\nProtocol `{results.protocol}`, {scope(results)}."]
    if results.averages:
        cells = [average_cells(name, average) for name, average in results.averages.items()]
        parts.append("## Averages\n\n" + grid(("average", "score", "coverage"), cells))
    parts += [f"![]({picture})" for picture in pictures]
    parts.append("## Tasks\n\n" + grid(HEADER, rows(results)) + "\n\n" + LEGEND)
    for title, body in (
        ("Further metrics", _metrics(results.tasks)),
        ("Categories", _categories(results.tasks)),
        ("Not scored", _unscored(results.tasks)),
    ):
        if body:
            parts.append(f"## {title}\n\n{body}")
    if results.missing:
        parts.append("## Missing\n\nThe bundle has no data for " + ", ".join(f"`{name}`" for name in results.missing))
    parts.append("## How\n\n" + _how(results))
    return "\n\n".join(parts) + "\n"


LEGEND = (
    "K: examples in the prompt. n: items graded. baseline: guessing. majority: always giving the most frequent right "
    "answer. centered: (accuracy - baseline) / (1 - baseline). truncated: items whose context lost its beginning."
)


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `|` in cells is escaped."""
    body = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in body)


def _metrics(tasks: Sequence[TaskResult]) -> str:
    lines = [(task.label, name, number(value)) for task in tasks for name, value in task.metrics.items()]
    return grid(("task", "metric", "mean"), lines) if lines else ""


def _categories(tasks: Sequence[TaskResult]) -> str:
    lines = [
        (task.label, name, str(entry["n"]), number(entry["accuracy"]))
        for task in tasks
        for name, entry in task.categories.items()
    ]
    return grid(("task", "category", "n", "accuracy"), lines) if lines else ""


def _unscored(tasks: Sequence[TaskResult]) -> str:
    lines = [(task.label, str(count), reason) for task in tasks for reason, count in task.unscored.items()]
    return grid(("task", "items", "why"), lines) if lines else ""


def _how(results: Results) -> str:
    facts = {
        "tokenizer": results.model.get("tokenizer_hash", ""),
        "context": f"{results.model.get('max_length', '?')} tokens",
        "bundle": results.bundle,
        **{name: str(value) for name, value in results.notes.items()},
        **{f"{name} version": text for name, text in results.versions.items()},
    }
    data = [(task.label, f"`{task.data_sha256[:16]}`") for task in results.tasks]
    return grid(("", ""), list(facts.items())) + "\n\n" + grid(("task", "sha256 of the data"), data)

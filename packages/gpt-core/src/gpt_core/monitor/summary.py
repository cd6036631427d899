"""The end of a run: its figures in `summaries.json` and as a table in the terminal."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .run_reader import Run
from .sinks import BaseSink
from .strict_json import dumps, loads, write_atomic
from .text import count, duration, number, percent

BENCHMARKS = {
    "core/score": "CORE",
    "core/partial": "CORE, partial",
    "chatcore/score": "ChatCORE",
    "chatcore/partial": "ChatCORE, partial",
}
"""Scores that a run may have had on the way -> what the table calls them."""


def summarize(run: Run, status: str | None = None) -> dict[str, Any]:
    """The final figures of a run; what was not measured is None. Averages leave out the first five reports.

    `status`: how the run ends, for the run itself, whose end is not yet on record.
    """
    best = run.best_val
    bits = [point.metrics["val/bits_per_byte"] for point in run.curve("val/bits_per_byte")]
    val_loss, (milliseconds, rate) = run.last("val/loss"), pace(run)
    return {
        "run_name": run.name,
        "status": status or run.status,
        "final_step": max((p.step for p in (*run.train, *run.evals)), default=None),
        "total_params": (run.start.get("model") or {}).get("total_params"),
        "train/loss": run.last("train/loss"),
        "val/loss": val_loss,
        "val/best_loss": run.best_val_loss,
        "val/best_loss_step": None if best is None else best.step,
        "val/ppl": perplexity(val_loss),
        "val/bits_per_byte": bits[-1] if bits else None,
        "val/best_bits_per_byte": None if best is None else best.metrics.get("val/bits_per_byte"),
        "test/loss": run.last("test/loss"),
        **{name: found for name in BENCHMARKS if (found := run.last(name)) is not None},
        "train/step_time_ms": milliseconds,
        "train/tokens_per_sec": rate,
        "train/mfu": run.mean("train/mfu"),
        "seconds": run.seconds,
        "checkpoints": len(run.checkpoints),
    }


def pace(run: Run, skip: int = 5) -> tuple[float | None, float | None]:
    """Milliseconds per step, and tokens per second of these steps; a report is of the steps since the one before."""
    reports = run.curve("train/step_time_ms")
    befores = [0, *(point.step for point in reports)]
    spans = [(point, max(1, point.step - before)) for point, before in zip(reports, befores, strict=False)]
    spans = spans[skip:] if len(spans) > skip else spans
    times = [(point.metrics["train/step_time_ms"] * steps, point) for point, steps in spans]
    total = sum(time for time, _ in times)
    if not total:
        return None, None
    known = [
        (time, point.metrics["train/tokens_per_sec"])
        for time, point in times
        if "train/tokens_per_sec" in point.metrics
    ]
    rate = sum(time * each for time, each in known) / sum(time for time, _ in known) if known else None
    return total / sum(steps for _, steps in spans), rate


def perplexity(loss: float | None) -> float | None:
    """exp(loss), None where it is unknown or beyond any float."""
    return None if loss is None or not math.isfinite(loss) or loss > 700 else math.exp(loss)


class SummarySink(BaseSink):
    """Writes `summaries.json`; several `summary` calls add up, the later one wins."""

    def __init__(self, run_dir: str | Path):
        self._path = Path(run_dir) / "summaries.json"

    def summary(self, data: Mapping[str, Any]) -> None:
        known = loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
        write_atomic(self._path, dumps({**known, **data}, indent=2) + "\n")


def summary_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and text of the figures that a person wants to see, unknown ones left out."""
    shown = [
        ("run", "run_name", str),
        ("status", "status", str),
        ("steps", "final_step", "{:,}".format),
        ("parameters", "total_params", lambda n: f"{n:,} ({count(float(n))})"),
        ("train loss", "train/loss", "{:.4f}".format),
        ("val loss", "val/loss", "{:.4f}".format),
        ("best val loss", "val/best_loss", lambda x: f"{x:.4f} at step {summary.get('val/best_loss_step', '?')}"),
        ("val perplexity", "val/ppl", number),
        ("val bits per byte", "val/bits_per_byte", "{:.4f}".format),
        ("test loss", "test/loss", "{:.4f}".format),
        *((label, name, "{:+.4f}".format) for name, label in BENCHMARKS.items()),
        ("time", "seconds", duration),
        ("time per step", "train/step_time_ms", "{:.1f} ms".format),
        ("tokens per second", "train/tokens_per_sec", "{:,.0f}".format),
        ("MFU", "train/mfu", percent),
    ]
    rows = [(label, form(summary[key])) for label, key, form in shown if summary.get(key) is not None]
    return rows if summary.get("train/mfu") is not None else [*rows, ("MFU", "n/a")]


def summary_table(summary: Mapping[str, Any]) -> Any:
    """The figures of a finished run as a `rich.table.Table`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=False, title="Run summary", title_justify="left")
    table.add_column(style="dim")
    table.add_column(justify="right")
    for label, value in summary_rows(summary):
        table.add_row(label, Text(value, style="bold green" if label.startswith("best val") else ""))
    return table

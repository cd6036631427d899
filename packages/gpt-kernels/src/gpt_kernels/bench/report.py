"""Rows of measurements as a table, as CSV and as a picture."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from .measure import Ceiling, Row


def table(rows: Sequence[Row]) -> str:
    """Markdown; a side that was not measured says why in the last column."""
    header = ("op", "shape", "pass", "side", "ms", "x reference", "GB/s", "TFLOP/s", "% of ceiling", "error", "peak MB")
    header = (*header, "goals, notes")
    reference = {(row.op, row.shape, row.direction): row.milliseconds for row in rows if row.side == "reference"}
    lines = []
    for row in rows:
        base = reference.get((row.op, row.shape, row.direction))
        speedup = base / row.milliseconds if base and row.milliseconds else None
        side = f"{row.side} ({row.backend})" if row.backend else row.side
        numbers = (row.milliseconds, speedup, row.gigabytes_per_second, row.teraflops_per_second)
        numbers = (*numbers, row.percent_of_ceiling, row.error, row.peak_megabytes)
        lines.append((row.op, row.shape, row.direction, side, *map(_number, numbers), row.goals or row.note))
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    shown = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in (header, *lines)
    ]
    return "\n".join([shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]])


def describe(ceiling: Ceiling) -> str:
    peak = ceiling.flops_per_second
    flops = f"{peak / 1e12:.0f} TFLOP/s (published, dense, 16 bit)" if peak else "FLOP/s n/a (no published peak known)"
    return f"{ceiling.name}: copies {ceiling.bytes_per_second / 1e9:.4g} GB/s (measured); {flops}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(["" if value is None else value for value in astuple(row)] for row in rows)


def write_plot(rows: Sequence[Row], path: Path, title: str) -> str:
    """Bars of the time of each side relative to the reference's; returns what was done, for the user."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no plot: matplotlib is not installed"
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.milliseconds is not None]
    if not measured:
        return "no plot: nothing was measured"
    cases = list(dict.fromkeys((row.op, row.shape, row.direction) for row in measured))
    sides = list(dict.fromkeys(row.side for row in measured))
    reference = {(row.op, row.shape, row.direction): row.milliseconds for row in measured if row.side == "reference"}
    figure = Figure(figsize=(9, 1.5 + 0.16 * len(measured)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    height = 0.8 / len(sides)
    for index, side in enumerate(sides):
        bars = []
        for at, case in enumerate(cases):
            for row in measured:
                base = reference.get(case)
                if (row.op, row.shape, row.direction) == case and row.side == side and base and row.milliseconds:
                    bars.append((at + index * height, base / row.milliseconds))
        axes.barh([at for at, _ in bars], [speed for _, speed in bars], height=height, label=side)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([at + 0.4 - height / 2 for at in range(len(cases))], [" ".join(case) for case in cases], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("speed relative to the reference (higher is faster)")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)
    return f"wrote {path}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

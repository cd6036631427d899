"""The figures of a scaling study. Each is drawn as PNG (for pages) and PDF (for papers), with its numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Measurement, by_budget
from power_law import PowerLaw, ScalingLaw

from gpt_core.monitor.strict_json import write_atomic

_INK, _GREY, _RED = "#24292f", "#8a8f98", "#c8452f"
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#d0d4da",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True)
class Drawn:
    """One figure and the table that it shows."""

    name: str
    figure: Any
    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def draw_all(
    rows: Sequence[Measurement], law: ScalingLaw, out: Path, clock: str = "wall"
) -> tuple[list[Path], list[str]]:
    """Draw what the rows allow into `out`; returns the files, and a warning for every figure that they do not.

    rows: all with the parameters of `law.convention`. law: its fit. clock: wall or cpu, what the steps are timed by.
    """
    import matplotlib

    matplotlib.use("Agg")  # files only: works without a display
    from matplotlib import pyplot

    files, warnings = [], []
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_SETTINGS):
        for make in (isoflop, growth, tokens, partial(training_time, clock=clock), core):
            drawn = make(pyplot, rows, law)
            if isinstance(drawn, str):
                warnings.append(drawn)
                continue
            files += _save(drawn, out)
            pyplot.close(drawn.figure)
    return files, warnings


def isoflop(pyplot: Any, rows: Sequence[Measurement], law: ScalingLaw) -> Drawn:
    """(1) Bits per byte over size, a parabola for every budget, a star at its minimum."""
    figure, axes = pyplot.subplots(figsize=(7.2, 4.8))
    for (budget, group), color, best in zip(by_budget(rows).items(), _colors(rows), law.optima, strict=True):
        sizes = [_size(row, law) for row in group]
        axes.plot(sizes, [row.val_bpb for row in group], "o", color=color, markersize=5.5, label=_flops(budget))
        if best.curve is not None:
            reach = 0.06 * (math.log10(max(sizes)) - math.log10(min(sizes)))
            x = np.linspace(math.log10(min(sizes)) - reach, math.log10(max(sizes)) + reach, 200)
            axes.plot(10**x, np.polyval(best.curve, x), color=color, linewidth=1.4, alpha=0.75)
        style = {"color": color, "markeredgecolor": _INK, "markeredgewidth": 0.8, "zorder": 5}
        if best.flag is None:
            axes.plot([best.params], [best.bpb], "*", markersize=16, **style)
        else:
            axes.plot([best.params], [best.bpb], "X", markersize=8, **style)
    axes.set(xscale="log", xlabel=f"parameters N ({law.convention})", ylabel="validation loss (bits per byte)")
    _short_ticks(axes.xaxis)
    axes.set_title("Same compute, different sizes")
    axes.legend(title="training FLOPs", alignment="left")
    table = [(row.flops_budget, row.depth, row.seed, _size(row, law), row.tokens_trained, row.val_bpb) for row in rows]
    header = ("flops_budget", "depth", "seed", "params", "tokens", "val_bpb")
    return Drawn("isoflop", figure, header, table)


def growth(pyplot: Any, rows: Sequence[Measurement], law: ScalingLaw) -> Drawn | str:
    """(2) The best size and the best number of tokens over compute, with their power laws."""
    if law.params is None or law.tokens is None:
        return "optimum: no figure, fewer than two budgets have a minimum inside their sizes"
    figure, panels = pyplot.subplots(1, 2, figsize=(9.6, 4.2))
    compute = np.array([best.budget for best in law.usable])
    line = np.geomspace(compute.min() / 2, compute.max() * 2, 50)
    for axes, name, letter, label in (
        (panels[0], "params", "a", "best size N*"),
        (panels[1], "tokens", "b", "best tokens D*"),
    ):
        fitted = getattr(law, name)
        edges = getattr(law.over_points, letter) if law.over_points else None
        values = [getattr(best, name) for best in law.usable]
        axes.plot(line, [fitted.at(c) for c in line], color=_GREY, linewidth=1.4, label=_law(fitted, letter, edges))
        axes.scatter(compute, values, s=64, c=_colors(rows, compute), edgecolors=_INK, linewidths=0.8, zorder=4)
        flagged = [best for best in law.optima if best.flag is not None]
        if flagged:
            points = [getattr(best, name) for best in flagged]
            budgets = [best.budget for best in flagged]
            axes.plot(budgets, points, "x", color=_RED, label="no minimum inside: not fitted")
        axes.set(xscale="log", yscale="log", xlabel="compute C (training FLOPs)", ylabel=label)
        axes.set_xticks(compute, [_flops(c) for c in compute])
        axes.set_xticks([], minor=True)
        _short_ticks(axes.yaxis)
        axes.legend(loc="upper left")
    panels[0].set_title(f"Parameters ({law.convention})")
    panels[1].set_title("Tokens")
    table = [(best.budget, best.params, best.tokens, best.ratio, best.bpb, best.flag or "") for best in law.optima]
    return Drawn("optimum", figure, ("flops_budget", "params", "tokens", "ratio", "bpb", "flag"), table)


def tokens(pyplot: Any, rows: Sequence[Measurement], law: ScalingLaw) -> Drawn:
    """(3) Tokens over size: what each budget pays for, beside C = 6ND, which leaves attention out."""
    figure, axes = pyplot.subplots(figsize=(7.2, 4.8))
    for (budget, group), color, best in zip(by_budget(rows).items(), _colors(rows), law.optima, strict=True):
        sizes = np.array([_size(row, law) for row in group])
        axes.plot(sizes, [row.tokens_trained for row in group], "o-", color=color, linewidth=1, markersize=4.5)
        axes.plot(sizes, budget / (6 * sizes), ":", color=color, linewidth=1.2)
        axes.plot([], [], "o-", color=color, linewidth=1, markersize=4.5, label=_flops(budget))
        if best.flag is None:
            axes.plot([best.params], [best.tokens], "*", color=color, markersize=15, markeredgecolor=_INK, zorder=5)
    axes.plot([], [], ":", color=_GREY, label="6ND = C")
    axes.set(xscale="log", yscale="log", xlabel=f"parameters N ({law.convention})", ylabel="training tokens D")
    _short_ticks(axes.xaxis, axes.yaxis)
    axes.set_title("What a budget buys")
    axes.legend(title="training FLOPs", alignment="left")
    table = [(r.flops_budget, r.depth, r.seed, _size(r, law), r.tokens_trained, r.flops_per_token) for r in rows]
    return Drawn("tokens", figure, ("flops_budget", "depth", "seed", "params", "tokens", "flops_per_token"), table)


def training_time(pyplot: Any, rows: Sequence[Measurement], law: ScalingLaw, clock: str = "wall") -> Drawn | str:
    """(4) Minutes of training, and how well the hardware was used: MFU, or FLOP/s where its peak is not known.

    clock: cpu takes processor seconds, which other work on the machine does not lengthen much.
    """
    seconds = lambda row: (row.train_time_sec if clock == "wall" else row.cpu_time_sec) or 0.0
    timed = [row for row in rows if seconds(row)]
    if not timed:
        return f"time: no figure, no run says how long its steps took ({clock})"
    rate = lambda row: _flops_spent(row) / seconds(row)
    share = clock == "wall" and all(row.mfu is not None for row in timed)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 4.2))
    for (budget, group), color in zip(by_budget(timed).items(), _colors(rows, by_budget(timed)), strict=True):
        sizes = [_size(row, law) for row in group]
        left.plot(sizes, [seconds(row) / 60 for row in group], "o-", color=color, label=_flops(budget))
        used = [100 * (row.mfu or 0) if share else rate(row) for row in group]
        right.plot(sizes, used, "o-", color=color)
    for axes in (left, right):
        axes.set(xscale="log", xlabel=f"parameters N ({law.convention})")
        _short_ticks(axes.xaxis)
    left.set(yscale="log", title="Time of the steps")
    left.set_ylabel("training time (minutes)" if clock == "wall" else "training time (CPU minutes)")
    _short_ticks(left.yaxis)
    figure.legend(title="training FLOPs", alignment="left", loc="outside right upper")
    right.set(
        ylabel="mean MFU (%)" if share else "FLOP/s" if clock == "wall" else "FLOP per CPU second",
        title="Use of the hardware",
    )
    right.set_ylim(bottom=0)
    if not share:
        _short_ticks(right.yaxis)
    table = [(r.flops_budget, r.depth, r.seed, _size(r, law), seconds(r), r.mfu, rate(r)) for r in timed]
    header = ("flops_budget", "depth", "seed", "params", f"{clock}_time_sec", "mfu", "flops_per_second")
    return Drawn("time", figure, header, table)


def core(pyplot: Any, rows: Sequence[Measurement], law: ScalingLaw) -> Drawn | str:
    """(5) CORE over size, where it was measured."""
    scored = [row for row in rows if row.core_score is not None]
    if not scored:
        return "core: no figure, no run has a CORE score (eval.core_every)"
    figure, axes = pyplot.subplots(figsize=(7.2, 4.8))
    for (budget, group), color in zip(by_budget(scored).items(), _colors(rows, by_budget(scored)), strict=True):
        sizes = [_size(row, law) for row in group]
        axes.plot(sizes, [row.core_score for row in group], "o-", color=color, label=_flops(budget))
    axes.set(xscale="log", xlabel=f"parameters N ({law.convention})", ylabel="CORE (0: chance, 1: perfect)")
    _short_ticks(axes.xaxis)
    axes.set_title("CORE")
    axes.legend(title="training FLOPs", alignment="left")
    table = [(row.flops_budget, row.depth, row.seed, _size(row, law), row.core_score) for row in scored]
    return Drawn("core", figure, ("flops_budget", "depth", "seed", "params", "core_score"), table)


def _size(row: Measurement, law: ScalingLaw) -> int:
    size = row.params_total if law.convention == "all parameters" else row.params_scaling
    assert size is not None
    return size


def _flops_spent(row: Measurement) -> float:
    """What its whole steps came to."""
    return row.flops_budget if row.flops_per_token is None else row.flops_per_token * row.tokens_trained


def _colors(rows: Sequence[Measurement], budgets: Any = None) -> list[Any]:
    """One for each budget in order, from dark (little compute) to light; the same in every figure."""
    from matplotlib import colormaps

    every = list(by_budget(rows))
    shades = colormaps["viridis"](np.linspace(0.08, 0.82, len(every)))
    known = dict(zip(every, shades, strict=True))
    return [known[budget] for budget in (every if budgets is None else budgets)]


def _flops(budget: float) -> str:
    power = math.floor(math.log10(budget))
    factor = budget / 10**power
    return rf"$10^{{{power}}}$" if abs(factor - 1) < 1e-9 else rf"${factor:.3g} \times 10^{{{power}}}$"


def _short_ticks(*axes: Any) -> None:
    """`200M` for 2 × 10⁸; between powers of ten only where there is room."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    class Between(LogFormatter):  # it knows how many decades are shown, and so which ticks may be named
        def __call__(self, x: float, pos: Any = None) -> str:
            return _short(x) if super().__call__(x, pos) else ""

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        if axis.get_scale() == "log":
            axis.set_minor_formatter(Between(labelOnlyBase=False, minor_thresholds=(1.3, 0.5)))


def _short(value: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * (1 - 1e-9):
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _law(law: PowerLaw, letter: str, edges: tuple[float, float] | None) -> str:
    interval = "" if edges is None else f" [{edges[0]:.2f}, {edges[1]:.2f}]"
    return f"$C^{{{letter}}}$,  {letter} = {law.exponent:.3f}{interval}"


def _save(drawn: Drawn, out: Path) -> list[Path]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(drawn.header)
    writer.writerows(["" if value is None else value for value in row] for row in drawn.rows)
    table = out / f"scaling-{drawn.name}.csv"
    write_atomic(table, text.getvalue())
    files = [table]
    for kind in ("png", "pdf"):
        path = out / f"scaling-{drawn.name}.{kind}"
        aside = path.with_name(f".{path.name}.tmp")
        # without the time: the same data give the same file
        drawn.figure.savefig(
            aside, format=kind, metadata={"CreationDate": None} if kind == "pdf" else {"Software": None}
        )
        aside.replace(path)
        files.append(path)
    return files

"""What an ablation found, as a table and a picture.

Dimensions of nothing: losses are nats per token. For a switch, seed by seed, with L and τ the validation loss and the
time per step with it, L' and τ' without it:

    at equal steps   L' − L                    what it costs to leave it out; positive: the trick helps
    at equal time    L' − L − s · ln(τ / τ')   in the same time there are τ / τ' as many steps without it, and an e-fold
                                               of steps is worth s, measured on the recipe itself:
                     s = (L(0.8 N steps) − L(N steps)) / ln(1 / 0.8), each with its whole schedule

Intervals are Student's t of the differences paired by seed, 95 % each. s is that of the same seed, so that its own
uncertainty is in them; a seed without the shorter run has no part in the change at equal time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ablation_plan import Comparison, Plan
from student import Interval, interval
from switches import SWITCHES

BEGIN, END = "<!-- ablation -->", "<!-- end of ablation -->"
"""Lines of a Markdown file between which `publish` puts the table."""
_BLUE, _ORANGE, _GREY = "#2f6fb0", "#d9622b", "#8a8f98"


@dataclass(frozen=True)
class Worth:
    """What a switch is worth."""

    switch: str
    equal_steps: Interval
    equal_time: Interval
    slower: Interval
    """τ / τ' − 1: how much longer a step takes with it."""


def worths(plan: Plan, results: Sequence[Mapping[str, Any]], clock: str) -> list[Worth]:
    """Of every switch that has a whole pair of runs, the most useful first."""
    by_run = {(result["name"], result["seed"]): result for result in results}
    seeds = sorted({result["seed"] for result in results})
    gains = slopes(by_run, seeds)
    found = [worth for each in plan.comparisons if (worth := _worth(each, by_run, seeds, gains, clock))]
    return sorted(found, key=lambda worth: -worth.equal_steps.mean)


def slopes(by_run: Mapping[tuple[str, int], Mapping[str, Any]], seeds: Sequence[int]) -> dict[int, float]:
    """s of every seed that has both runs: loss gained per e-fold of steps."""
    pairs = {seed: (by_run.get(("recipe-shorter", seed)), by_run.get(("recipe", seed))) for seed in seeds}
    return {
        seed: (short["val_loss"] - whole["val_loss"]) / math.log(whole["steps"] / short["steps"])
        for seed, (short, whole) in pairs.items()
        if short and whole
    }


def _worth(
    comparison: Comparison,
    by_run: Mapping[tuple[str, int], Mapping[str, Any]],
    seeds: Sequence[int],
    gains: Mapping[int, float],
    clock: str,
) -> Worth | None:
    losses, ratios = {}, {}
    for seed in seeds:
        with_it, without = by_run.get((comparison.with_it, seed)), by_run.get((comparison.without_it, seed))
        if with_it and without:
            losses[seed] = without["val_loss"] - with_it["val_loss"]
            ratios[seed] = (with_it[clock] / with_it["steps"]) / (without[clock] / without["steps"])
    if not losses:
        return None
    at_time = [loss - gains[seed] * math.log(ratios[seed]) for seed, loss in losses.items() if seed in gains]
    slower = interval([ratio - 1 for ratio in ratios.values()])
    return Worth(comparison.switch, interval([*losses.values()]), interval(at_time), slower)


def table(plan: Plan, results: Sequence[Mapping[str, Any]], clock: str) -> str:
    """Markdown: the recipe's own figures, then one line per switch."""
    recipe = [result for result in results if result["name"] == "recipe"]
    if not recipe:
        return "no run of the recipe is done yet\n"
    losses = interval([result["val_loss"] for result in recipe])
    seconds = fmean(result[clock] / result["steps"] for result in recipe)
    places = "; ".join(dict.fromkeys(result["where"] for result in recipe))
    gains = slopes({(r["name"], r["seed"]): r for r in results}, sorted({r["seed"] for r in results}))
    worth = _shown(interval([*gains.values()]), signed=False)
    bits = [result["bits_per_byte"] for result in recipe if result["bits_per_byte"]]
    lines = [
        f"{'The recipe' if plan.mode == 'leave-one-out' else 'The bare recipe'} ({plan.config}, {plan.steps} steps): "
        f"val loss {_shown(losses, signed=False)}"
        + (f", {fmean(bits):.4f} bits per byte" if bits else "")
        + f", {1e3 * seconds:.0f} ms per step ({CLOCKS[clock]}), {losses.n} of {plan.seeds} seeds. "
        f"An e-fold of steps is worth {worth}. Measured on {places}.",
        "",
        "| switch | what it does | at equal steps | at equal time | step time with it | |",
        "|---|---|---|---|---|---|",
    ]
    for each in worths(plan, results, clock):
        lines.append(
            f"| {each.switch} | {SWITCHES[each.switch].about} | {_shown(each.equal_steps)} | "
            f"{_shown(each.equal_time)} | {_percent(each.slower)} | {verdict(each)}"
            + ("" if each.equal_steps.n == losses.n else f" ({each.equal_steps.n} of {losses.n} seeds)")
            + " |"
        )
    lines += ["", f"Of {len(lines) - 4} intervals of 95 % each, one in twenty misses by chance."]
    return "\n".join(lines) + "\n"


CLOCKS = {"cpu_seconds": "CPU time", "train_seconds": "wall clock"}


def verdict(worth: Worth) -> str:
    """In words, by the interval at equal time."""
    if not worth.equal_time.clear:
        return "not clear"
    return "helps" if worth.equal_time.mean > 0 else "hurts"


def _shown(value: Interval, *, signed: bool = True) -> str:
    if not value.n:
        return "not measured"
    half = "" if math.isinf(value.half) else f" ± {value.half:.4f}"
    return f"{value.mean:+.4f}{half}" if signed else f"{value.mean:.4f}{half}"


def _percent(value: Interval) -> str:
    half = "" if math.isinf(value.half) else f" ± {100 * value.half:.1f}"
    return f"{100 * value.mean:+.1f}{half} %"


def picture(plan: Plan, found: Sequence[Worth], file: Path) -> None:
    """Bars of both changes of the loss, with their intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.36 * len(found)), layout="constrained")
    for offset, color, label in ((-0.18, _BLUE, "at equal steps"), (0.18, _ORANGE, "at equal time")):
        values = [each.equal_steps if offset < 0 else each.equal_time for each in found]
        places = [place + offset for place in range(len(found))]
        errors = [0.0 if math.isinf(value.half) else value.half for value in values]
        axes.barh(
            places,
            [value.mean for value in values],
            0.34,
            xerr=errors,
            color=color,
            label=label,
            error_kw={"ecolor": "#333333", "elinewidth": 1},
        )
    axes.set_yticks(range(len(found)), [each.switch for each in found])
    axes.invert_yaxis()
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_xlabel("loss without it minus loss with it (nats per token; right: it helps)")
    seeds = max((each.equal_steps.n for each in found), default=0)
    axes.set_title(f"{plan.config}, {plan.mode}, {plan.steps} steps, {seeds} seeds", loc="left", fontsize=11)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def write(plan: Plan, folder: Path, results: Sequence[Mapping[str, Any]], clock: str) -> str:
    """`report.md` and `ablation.png` in `folder`; returns the table."""
    text = table(plan, results, clock)
    (folder / "report.md").write_text(text, encoding="utf-8")
    if found := worths(plan, results, clock):
        picture(plan, found, folder / "ablation.png")
    return text


def publish(plan: Plan, folder: Path, file: Path) -> None:
    """Put what `write` has written into a Markdown file, between its lines `BEGIN` and `END`, and the picture into
    images/ beside it. ValueError for a file without these lines."""
    text = file.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"\n{BEGIN}\n")
    _, end, after = rest.partition(f"\n{END}\n")
    if not begin or not end:
        raise ValueError(f"{file} has no place for the table: write the lines {BEGIN} and {END} where it should go")
    image = file.parent / "images" / f"ablation-{Path(plan.config).stem}.png"
    shown = ""
    if (made := folder / "ablation.png").exists():
        image.parent.mkdir(exist_ok=True)
        shutil.copy(made, image)
        shown = f"\n![loss without each switch, less that with it](images/{image.name})\n"
    report = (folder / "report.md").read_text(encoding="utf-8")
    file.write_text(f"{before}{begin}\n{report}{shown}{end}{after}", encoding="utf-8")

"""Pictures of runs: the loss curve of one, the comparison of several. Needs matplotlib (`gpt-core[report]`)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .run_reader import Point, Run, RunError, read_run

_BLUE, _ORANGE, _GREY = "#2f6fb0", "#d9622b", "#8a8f98"
_DPI = 130


def loss_curve(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Draw `report/loss.png`: training loss raw and smoothed, validation points, the learning rate below.

    Raises RunError if the run has no finite loss, ImportError if matplotlib is missing.
    """
    run = read_run(run_dir)
    train, val = _finite(run.curve("train/loss"), "train/loss"), _finite(run.curve("val/loss"), "val/loss")
    if not train and not val:
        raise RunError(f"{run.path}: no finite loss to draw")
    rates = run.curve("train/lr")
    figure, (top, bottom) = _panels(bool(rates))
    if train:
        steps, losses = _columns(train, "train/loss")
        enough = len(losses) > 20
        top.plot(steps, losses, color=_BLUE, alpha=0.25 if enough else 1.0, linewidth=1, label="train")
        if enough:
            top.plot(steps, smooth(losses), color=_BLUE, linewidth=1.8, label="train, smoothed")
    if val:
        steps, losses = _columns(val, "val/loss")
        top.plot(steps, losses, "o-", color=_ORANGE, markersize=4, linewidth=1.2, label="validation")
        top.annotate(
            f"{losses[-1]:.3f}", (steps[-1], losses[-1]), (4, 6), textcoords="offset points", color=_ORANGE, fontsize=9
        )
    _scale(top, [point.metrics["train/loss"] for point in train] + [point.metrics["val/loss"] for point in val])
    top.set_ylabel("loss (nats per token)")
    top.legend(frameon=False)
    if bottom is not None:
        steps, values = _columns(rates, "train/lr")
        bottom.plot(steps, values, color=_GREY, linewidth=1.2)
        bottom.set_ylim(bottom=0)
        bottom.set_ylabel("learning rate")
    (bottom if bottom is not None else top).set_xlabel("step")
    top.set_title(_title(run), loc="left", fontsize=11, fontweight="bold")
    return _save(figure, Path(out) if out is not None else run.path / "report" / "loss.png")


def comparison(runs: Sequence[Run], out: str | Path) -> Path:
    """Draw the validation loss (training loss where there is none) of several runs over steps and over time."""
    curves = [(run, metric, points) for run in runs for metric, points in [_loss_points(run)] if points]
    if not curves:
        raise RunError("none of these runs has a finite loss to draw")
    figure, (by_step, by_time) = _pyplot().subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    unit, per_unit = _time_unit([run.seconds for run, _, _ in curves])
    for index, (run, metric, points) in enumerate(curves):
        losses = [point.metrics[metric] for point in points]
        style: dict[str, Any] = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3]}
        if len(points) <= 40:
            style |= {"marker": "o", "markersize": 3.5}
        kind = "" if metric == "val/loss" else "train "
        label = f"{run.name} ({kind}{min(losses):.3f})".replace("$", r"\$")
        by_step.plot([point.step for point in points], losses, label=label, linewidth=1.5, **style)
        timed = [(point.seconds / per_unit, loss) for point, loss in zip(points, losses, strict=True) if point.seconds]
        by_time.plot([time for time, _ in timed], [loss for _, loss in timed], linewidth=1.5, **style)
    _scale(by_step, [point.metrics[metric] for _, metric, points in curves for point in points])
    for axis, label in ((by_step, "step"), (by_time, f"running time ({unit})")):
        axis.set_xlabel(label)
        _dress(axis)
    by_step.set_ylabel("validation loss (nats per token)")
    by_step.legend(frameon=False, fontsize=8)
    return _save(figure, Path(out))


def _loss_points(run: Run) -> tuple[str, list[Point]]:
    metric = "val/loss" if run.curve("val/loss") else "train/loss"
    return metric, _finite(run.curve(metric), metric)


def _time_unit(seconds: Sequence[float | None]) -> tuple[str, float]:
    longest = max((value for value in seconds if value is not None), default=0.0)
    return ("hours", 3600.0) if longest > 7200 else ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)


def smooth(values: Sequence[float], span: int | None = None) -> list[float]:
    """Centred moving average over about a thirtieth of the curve.

    The window shrinks symmetrically at the start, where the loss falls fast and an uneven one would be biased; at the
    end, where the curve is flat, it keeps its past half, so that the last point is not noise.
    """
    half = max(1, (span or len(values) // 30) // 2)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    smoothed = []
    for index in range(len(values)):
        back = min(half, index)
        forward = min(back, len(values) - 1 - index)
        smoothed.append((sums[index + forward + 1] - sums[index - back]) / (back + forward + 1))
    return smoothed


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as exc:
        raise ImportError("plots need matplotlib: pip install 'gpt-core[report]'") from exc
    matplotlib.use("Agg")  # files only: works without a display
    import matplotlib.pyplot as plt

    return plt


def _panels(with_rate: bool) -> tuple[Any, tuple[Any, Any]]:
    plt = _pyplot()
    if not with_rate:
        figure, axis = plt.subplots(figsize=(8, 4.8), layout="constrained")
        _dress(axis)
        return figure, (axis, None)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 5.6), sharex=True, layout="constrained", height_ratios=[4, 1]
    )
    _dress(top)
    _dress(bottom)
    return figure, (top, bottom)


def _dress(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)


def _scale(axis: Any, losses: Sequence[float]) -> None:
    """Logarithmic where the loss spans more than a factor of five and is positive; linear says more otherwise."""
    low, high = min(losses), max(losses)
    if low > 0 and high / low > 5:
        axis.set_yscale("log")


def _finite(points: Sequence[Point], metric: str) -> list[Point]:
    return [point for point in points if math.isfinite(point.metrics[metric])]


def _columns(points: Sequence[Point], metric: str) -> tuple[list[int], list[float]]:
    return [point.step for point in points], [point.metrics[metric] for point in points]


def _title(run: Run) -> str:
    final = run.last("val/loss")
    text = run.name if final is None else f"{run.name}: validation loss {final:.4f}"
    bits = run.last("val/bits_per_byte")
    text += "" if bits is None else f", {bits:.4f} bits per byte"
    return text.replace("$", r"\$")  # a dollar would start mathematics


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    figure.savefig(aside, dpi=_DPI, format=path.suffix.lstrip(".") or "png")
    aside.replace(path)
    _pyplot().close(figure)
    return path

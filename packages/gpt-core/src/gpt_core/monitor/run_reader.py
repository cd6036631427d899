"""Read a run folder back: metrics, evaluations, how it ended. Needs neither torch nor rich."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .jsonl import read_lines
from .strict_json import loads


class RunError(ValueError):
    """A folder that does not hold a readable run."""


@dataclass(frozen=True)
class Point:
    """Numbers of one step. `seconds` is the running time so far, pauses between sessions left out."""

    step: int
    seconds: float | None
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One run as read from disk. `start` is the data of its latest `start` event."""

    path: Path
    name: str
    start: Mapping[str, Any]
    train: tuple[Point, ...]
    evals: tuple[Point, ...]
    checkpoints: tuple[Mapping[str, Any], ...]
    status: str
    """completed | interrupted | failed | unfinished (alive, or killed)"""
    first_time: float | None
    last_time: float | None
    summary: Mapping[str, Any]

    def curve(self, metric: str) -> list[Point]:
        """The points at which `metric` is a number, in order of step."""
        points = self.evals if metric.startswith(("val/", "test/")) else self.train
        return [point for point in points if isinstance(point.metrics.get(metric), int | float)]

    @cached_property
    def best_val(self) -> Point | None:
        """The evaluation with the lowest validation loss."""
        return min(self.curve("val/loss"), key=lambda point: point.metrics["val/loss"], default=None)

    @property
    def best_val_loss(self) -> float | None:
        return None if self.best_val is None else self.best_val.metrics["val/loss"]

    @property
    def seconds(self) -> float | None:
        """Running time of all sessions together, evaluation included."""
        points = [p.seconds for p in (*self.train, *self.evals) if p.seconds is not None]
        return max(points, default=None)

    def last(self, metric: str) -> Any:
        points = self.curve(metric)
        return points[-1].metrics[metric] if points else None

    def mean(self, metric: str, skip: int = 0) -> float | None:
        """Mean over the logged steps, the first `skip` of them left out if there are more."""
        values = [point.metrics[metric] for point in self.curve(metric)]
        values = values[skip:] if len(values) > skip else values
        return sum(values) / len(values) if values else None


def read_run(path: str | Path) -> Run:
    """Read a run folder, a `metrics.jsonl`, or a `run.json` (also of systems that use the same schema).

    Raises RunError if there is nothing, or nothing readable, or no measurement in it.
    """
    path = Path(path)
    if path.is_dir():
        folder = path
        path = next((folder / name for name in ("metrics.jsonl", "run.json") if (folder / name).exists()), folder)
        if path == folder:
            raise RunError(f"{folder}: no metrics.jsonl or run.json here; give the folder of a run")
    elif not path.exists():
        raise RunError(f"{path}: no such run")
    try:
        run = _from_json(path) if path.suffix == ".json" else _from_lines(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as exc:
        if isinstance(exc, RunError):
            raise
        raise RunError(f"{path}: cannot be read as a run: {exc}") from exc
    if not run.train and not run.evals:
        raise RunError(f"{path}: the run has no measurements yet")
    return run


def latest_runs(out_dir: str | Path, number: int | None = None) -> list[Path]:
    """The run folders below `out_dir` (at most two levels down), the most recently written first."""
    out_dir = Path(out_dir)
    if not out_dir.is_dir():
        raise RunError(f"{out_dir}: no such folder; runs are looked for in --out_dir")
    logs = [file for pattern in ("*", "*/*") for file in out_dir.glob(f"{pattern}/metrics.jsonl")]
    logs.sort(key=lambda file: (file.stat().st_mtime, str(file)), reverse=True)
    return [file.parent for file in logs[:number]]


def _from_lines(path: Path) -> Run:
    start: Mapping[str, Any] = {}
    train: dict[int, Point] = {}
    evals: dict[int, Point] = {}
    checkpoints: list[Mapping[str, Any]] = []
    summary: Mapping[str, Any] = {}
    status, first, last, seconds = "unfinished", None, None, 0.0
    for record in read_lines(path):
        now, kind = record.get("time"), record.get("event")
        if kind == "start":
            start, status = record, "unfinished"
        elif last is not None and now is not None:
            seconds += max(0.0, now - last)
        first, last = now if first is None else first, now if now is not None else last
        if kind == "end":
            status = record["status"]
        elif kind == "summary":
            summary = record["summary"]
        elif kind == "checkpoint":
            checkpoints.append(record)
        elif kind in (None, "eval") and "step" in record:
            _add_point(record, seconds, train, evals)
    name = start.get("run_name") or path.parent.name
    return Run(
        path.parent, name, start, _sorted(train), _sorted(evals), tuple(checkpoints), status, first, last, summary
    )


def _add_point(record: Mapping[str, Any], seconds: float, train: dict[int, Point], evals: dict[int, Point]) -> None:
    """File a record under its step: as an evaluation, a training point, or both, by the numbers it holds."""
    metrics = {k: v for k, v in record.items() if k not in ("step", "time", "event")}
    held_out = [name.startswith(("val/", "test/")) for name in metrics]
    is_event = "event" in record
    step = record["step"]
    for points, belongs in ((evals, is_event or any(held_out)), (train, not is_event and not all(held_out))):
        if belongs:
            earlier = points[step].metrics if step in points else {}
            points[step] = Point(step, seconds, {**earlier, **metrics})


def _sorted(points: Mapping[int, Point]) -> tuple[Point, ...]:
    return tuple(points[step] for step in sorted(points))


def _from_json(path: Path) -> Run:
    data = loads(path.read_text(encoding="utf-8"))
    startup = data.get("startup_info") or {}
    train = [
        Point(
            row["iter"],
            None,
            {
                "train/loss": row.get("loss"),
                "train/step_time_ms": row.get("time_ms"),
                "train/mfu": _known((row.get("mfu") or {}).get("mfu")),
                "train/tokens_per_sec": (row.get("mfu") or {}).get("tokens_per_sec"),
            },
        )
        for row in data["training_iterations"]
    ]
    evals = [
        Point(row["iter"], None, {"val/loss": row.get("val_loss"), "train/loss": row.get("train_loss")})
        for row in data["eval_steps"]
    ]
    start = {
        **startup,
        "run_name": data.get("run_name"),
        "metadata": data.get("metadata"),
        "config": data.get("config"),
    }
    status = data.get("status") or ("completed" if data.get("end_time") else "unfinished")
    name = data.get("run_name") or path.stem
    summary = data.get("summary") or {}
    checkpoints = tuple({**row, "step": row.get("iter")} for row in data.get("checkpoints", []))
    return Run(path.parent, name, start, _by_step(train), _by_step(evals), checkpoints, status, None, None, summary)


def _by_step(points: Iterable[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.step))


def _known(value: Any) -> Any:
    """Earlier systems wrote −100 for an MFU that was not known."""
    return None if isinstance(value, int | float) and value < 0 else value

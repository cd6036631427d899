"""Several runs side by side: one row each, the best validation loss first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .run_reader import Run
from .summary import summarize
from .text import count, duration, percent


def compare_runs(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """One record per run, sorted by best validation loss (runs without one last), with its `rank`.

    `improvement` is the share by which a run's loss is below the worst one's; None where it has no loss.
    """
    rows = [_row(run) for run in runs]
    rows.sort(key=lambda row: (row["best_val_loss"] is None, row["best_val_loss"] or 0.0))
    losses = [row["best_val_loss"] for row in rows if row["best_val_loss"] is not None]
    worst = max(losses, default=None)
    for rank, row in enumerate(rows, start=1):
        loss = row["best_val_loss"]
        row["rank"] = rank
        row["improvement"] = None if loss is None or not worst else (worst - loss) / worst
    return rows


def _row(run: Run) -> dict[str, Any]:
    summary = summarize(run)
    model = run.start.get("model") or {}
    return {
        "rank": 0,
        "run": run.name,
        "path": str(run.path),
        "status": run.status,
        "architecture": model.get("architecture") or (run.start.get("mfu") or {}).get("architecture"),
        "params": model.get("total_params"),
        "steps": summary["final_step"],
        "best_val_loss": summary["val/best_loss"],
        "best_val_step": summary["val/best_loss_step"],
        "bits_per_byte": summary["val/best_bits_per_byte"],
        "improvement": None,
        "seconds": summary["seconds"],
        "ms_per_iter": summary["train/step_time_ms"],
        "tokens_per_sec": summary["train/tokens_per_sec"],
        "mfu": summary["train/mfu"],
        "vocab_size": model.get("vocab_size"),
    }


def different_vocabularies(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether losses per token are over different tokens, so that only bits per byte can be compared."""
    return len({row["vocab_size"] for row in rows if row["vocab_size"] is not None}) > 1


def compare_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The rows as a `rich.table.Table`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=f"{len(rows)} runs by validation loss", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("run", overflow="fold")
    table.add_column("architecture", overflow="fold", style="dim")
    for name in ("params", "steps", "val loss", "vs worst", "bpb", "time", "ms/iter", "tok/s", "MFU"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        style = "bold green" if row["rank"] == 1 and row["best_val_loss"] is not None else ""
        mark = "" if row["status"] == "completed" else f" ({row['status']})"
        cells = [str(row["rank"]), row["run"] + mark, row["architecture"] or "-", *_numbers(row)]
        table.add_row(*(Text(cell, style=style if index in (1, 5) else "") for index, cell in enumerate(cells)))
    return table


def _numbers(row: Mapping[str, Any]) -> list[str]:
    return [
        "-" if row["params"] is None else count(float(row["params"])),
        "-" if row["steps"] is None else str(row["steps"]),
        _fixed(row["best_val_loss"], 4),
        "-" if row["improvement"] is None else f"{row['improvement']:.1%}",
        _fixed(row["bits_per_byte"], 4),
        "-" if row["seconds"] is None else duration(row["seconds"]),
        _fixed(row["ms_per_iter"], 1),
        "-" if row["tokens_per_sec"] is None else count(row["tokens_per_sec"]),
        percent(row["mfu"]),
    ]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"

"""What one run of a scaling study measured, and the table of them on disk (`results.csv`)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gpt_core.monitor.strict_json import write_atomic


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A finished run. The first fourteen columns are nanochat's, in its order; what is not known is None."""

    flops_budget: float
    """Training FLOPs that the run was given (not what its whole steps came to)."""
    depth: int | None = None
    model_dim: int | None = None
    """Width, as configured."""
    params_wte: int | None = None
    params_value_embeds: int | None = None
    params_lm_head: int | None = None
    params_transformer: int | None = None
    """Matrices of the blocks."""
    params_scalars: int | None = None
    params_total: int | None = None
    num_iterations: int
    tokens_trained: int
    val_bpb: float
    """Validation loss in bits per byte after the last step."""
    core_score: float | None = None
    train_time_sec: float | None = None
    """Seconds of the steps alone."""
    seed: int | None = None
    batch: int | None = None
    """Tokens per step."""
    lr_scale: float | None = None
    """Factor on the configured learning rates."""
    mfu: float | None = None
    """Mean after the first ten steps, a share of the hardware's peak; None on unknown hardware."""
    flops_per_token: float | None = None
    cpu_time_sec: float | None = None
    """Processor seconds of the steps: what to compare where other work shares the machine."""
    run: str = ""

    @property
    def params_scaling(self) -> int | None:
        """N_scaling: parameters that are multiplied with every token, the blocks' matrices and the head.

        Without a head of its own (tied weights) that is the token embedding.
        """
        if self.params_transformer is None or self.params_lm_head is None:
            return None
        return self.params_transformer + (self.params_lm_head or self.params_wte or 0)

    @property
    def key(self) -> tuple[float, int | None, int | None]:
        """What tells the runs of a grid apart."""
        return (self.flops_budget, self.depth, self.seed)


COLUMNS = [field.name for field in fields(Measurement)]
NEEDED = ("flops_budget", "num_iterations", "tokens_trained", "val_bpb")
WHOLE = {"depth", "model_dim", "num_iterations", "tokens_trained", "seed", "batch"} | {
    name for name in COLUMNS if name.startswith("params_")
}


class ResultsError(ValueError):
    """Measurements that cannot be read or used."""


def write_results(file: Path, rows: Iterable[Measurement]) -> None:
    """All rows or none of them: a process that is killed leaves no half table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None else value for name, value in asdict(row).items()})
    write_atomic(file, text.getvalue())


def read_results(file: Path) -> tuple[list[Measurement], list[str]]:
    """The rows of `results.csv`, ours or nanochat's, and warnings about columns that it does not have.

    Raises ResultsError for a file without the columns that a fit needs, or a cell that is no number.
    """
    with open(file, newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        header = reader.fieldnames or []
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise ResultsError(f"{file}: no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}")
        known = [name for name in COLUMNS if name in header]
        rows = [
            Measurement(**{name: _cell(file, line, name, row) for name in known}) for line, row in enumerate(reader, 2)
        ]
    absent = [name for name in COLUMNS if name not in header]
    return rows, [f"{file}: no column {', '.join(absent)}"] if absent else []


def _cell(file: Path, line: int, name: str, row: dict[str, Any]) -> Any:
    text = (row.get(name) or "").strip()
    if name == "run":
        return text
    if not text:
        if name in NEEDED:
            raise ResultsError(f"{file}:{line}: {name} is empty; remove the line, or run the sweep again")
        return None
    try:
        value = float(text)
    except ValueError:
        raise ResultsError(f"{file}:{line}: {name} is {text!r}, expected a number") from None
    if not math.isfinite(value):
        raise ResultsError(f"{file}:{line}: {name} is {text}, expected a finite number")
    return int(value) if name in WHOLE else value


def by_budget(rows: Sequence[Measurement]) -> dict[float, list[Measurement]]:
    """Budgets in order, the runs of each by size."""
    budgets = sorted({row.flops_budget for row in rows})
    size = lambda row: row.params_scaling or row.params_total or 0
    return {budget: sorted((r for r in rows if r.flops_budget == budget), key=size) for budget in budgets}

"""`log.txt`: what a person reads after the fact. `[2026-01-31 12:00:00][INFO] step 10: train/loss=2.3`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .sinks import BaseSink, Number, Status
from .text import pairs

_NOT_SHOWN = ("grad/layers/", "val/", "test/")


class TextLogSink(BaseSink):
    """Appends to `log.txt`; other ranks than 0 to `log.<rank>.txt`, created at their first message."""

    def __init__(self, run_dir: str | Path, *, rank: int = 0, clock: Callable[[], float] = time.time):
        self.path = Path(run_dir) / ("log.txt" if rank == 0 else f"log.{rank}.txt")
        self._clock = clock

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        # Layer-wise norms are for metrics.jsonl: here they would bury the line. Evaluations come as events.
        shown = {name: value for name, value in metrics.items() if not name.startswith(_NOT_SHOWN)}
        if shown:
            self.write("INFO", f"step {step}: {pairs(shown)}")

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind in ("info", "warning", "error"):
            self.write(kind.upper(), str(data.get("message", "")))
        elif kind == "start":
            self.write("INFO", f"start of run {data.get('run_name', '')}")
        elif kind == "sample":
            self.write("INFO", f"sample at step {data.get('step', '?')}:\n{data.get('text', '')}")
        else:
            self.write("INFO", f"{kind}: {pairs(data)}")

    def summary(self, data: Mapping[str, Any]) -> None:
        self.write("INFO", f"summary: {pairs(data)}")

    def artifact(self, path: str | Path, name: str) -> None:
        self.write("INFO", f"artifact {name}: {path}")

    def close(self, status: Status, error: str | None = None) -> None:
        self.write("ERROR" if status == "failed" else "INFO", f"run {status}" + (f": {error}" if error else ""))

    def write(self, level: str, message: str) -> None:
        """Append one entry. The file is opened per entry: it may be moved or rotated while the run lives."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._clock()))
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"[{stamp}][{level}] {message}\n")

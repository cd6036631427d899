"""TensorBoard as an optional sink: `tensorboard --logdir out`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sinks import BaseSink, Number, Status


class TensorBoardSink(BaseSink):
    """Writes event files into `<run_dir>/tensorboard`. Raises ImportError naming the extra.

    `resume_step`: TensorBoard hides the points of an earlier session beyond it, as `metrics.jsonl` drops them.
    """

    optional = True

    def __init__(self, run_dir: str | Path, *, resume_step: int | None = None):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise ImportError("the TensorBoard sink needs tensorboard: pip install 'gpt-core[tensorboard]'") from exc
        purge = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(str(Path(run_dir) / "tensorboard"), purge_step=purge)

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        for name, value in metrics.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        step = data.get("step")
        if kind == "sample":
            self._writer.add_text("sample", f"```\n{data.get('text', '')}\n```", step or 0)

    def summary(self, data: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in data.items())
        self._writer.add_text("summary", f"| | |\n|-|-|\n{rows}")

    def close(self, status: Status, error: str | None = None) -> None:
        self._writer.close()

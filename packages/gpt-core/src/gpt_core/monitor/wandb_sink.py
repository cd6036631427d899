"""Weights & Biases as an optional sink. `WANDB_MODE=offline` needs no network and no account."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sinks import BaseSink, Number, Status


class WandbSink(BaseSink):
    """Logs to W&B with `step` as the x axis; a resumed run continues the W&B run it belongs to.

    A failed run is renamed `[failed] <name>` and tagged `failed`. Raises ImportError naming the extra.
    """

    optional = True

    def __init__(
        self,
        run_dir: str | Path,
        *,
        project: str,
        name: str,
        mode: str | None = None,
        notes: str | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        try:
            import wandb
        except ImportError as exc:
            raise ImportError("the W&B sink needs wandb: pip install 'gpt-core[wandb]'") from exc
        run_dir = Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        id_file = run_dir / "wandb_run_id.txt"
        run_id = id_file.read_text().strip() if id_file.exists() else None
        self._wandb = wandb
        self._run = wandb.init(
            project=project,
            name=name,
            notes=notes,
            dir=str(run_dir),
            id=run_id,
            resume="allow" if run_id else None,
            mode=mode,  # ty: ignore[invalid-argument-type] - wandb checks it and lists the modes
            config=dict(config or {}),
            settings=wandb.Settings(console="off"),  # log.txt is the record; a wrapped stdout breaks the live line
        )
        id_file.write_text(self._run.id + "\n")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        self._run.log({"step": step, **{name: value for name, value in metrics.items() if value is not None}})

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        step = data.get("step")
        if kind == "start":
            self._run.config.update(dict(data.get("config") or {}), allow_val_change=True)
        elif kind == "sample" and step is not None:
            self._run.log({"step": step, "sample": self._wandb.Html(_preformatted(str(data.get("text", ""))))})
        elif kind in ("warning", "error"):
            self._run.alert(title=kind, text=str(data.get("message", "")))

    def summary(self, data: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(data))

    def artifact(self, path: str | Path, name: str) -> None:
        if Path(path).suffix.lower() in (".png", ".jpg", ".jpeg"):
            self._run.log({name: self._wandb.Image(str(path))})
        else:
            self._run.save(str(path), base_path=str(Path(path).parent), policy="now")

    def close(self, status: Status, error: str | None = None) -> None:
        if status == "failed":
            self._run.name = f"[failed] {self._run.name}"
            self._run.tags = (*(self._run.tags or ()), "failed")
            self._run.summary["error"] = error or ""
        self._run.finish(exit_code=1 if status == "failed" else 0)


def _preformatted(text: str) -> str:
    import html

    return f"<pre>{html.escape(text)}</pre>"

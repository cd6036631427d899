"""`run.json`: the whole run in one file, in the schema of the system this one replaces.

It is derived from `metrics.jsonl`, never the only copy: built at intervals and at the end, and renamed into place.
The intervals grow with the run (a tenth of what is there), so that all rewriting together stays linear in its length.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .jsonl import read_lines
from .sinks import BaseSink, Number, Status
from .strict_json import write_atomic

_MODEL = ("total_params", "trainable_params", "non_embedding_params")
_OPTIMIZER = ("type", "param_groups")
_HARDWARE = ("gpu_name", "num_gpus", "gpu_memory_gb", "precision", "parallelism")
_METADATA = ("world_size", "device", "dtype", "compile", "use_zero1", "use_fsdp")


class RunJsonSink(BaseSink):
    """Rewrites `run.json` every `save_interval` logged steps and when the run closes.

    Must come after the `JsonlSink` in `Sinks`: it reads what that one has written.
    """

    def __init__(self, run_dir: str | Path, *, save_interval: int = 100):
        if save_interval < 1:
            raise ValueError(f"log_save_interval: got {save_interval}, expected at least 1")
        self._run_dir = Path(run_dir)
        self._interval = save_interval
        self._unsaved = 0
        self._saved = 0

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        self._unsaved += 1
        if self._unsaved >= max(self._interval, self._saved // 10):
            self.save()

    def close(self, status: Status, error: str | None = None) -> None:
        self.save()

    def save(self) -> None:
        """Build the file from `metrics.jsonl` now."""
        record = build_run_json(self._run_dir)
        # What comes out of strict JSON needs no second cleaning, which would cost more than all the rest.
        write_atomic(self._run_dir / "run.json", json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._saved, self._unsaved = len(record["training_iterations"]), 0


def build_run_json(run_dir: str | Path) -> dict[str, Any]:
    """The record of a run in the seed's schema, plus `status`. Every key is there; what is unknown is None."""
    run_dir = Path(run_dir)
    start: Mapping[str, Any] = {}
    start_time = end_time = None
    status = None
    iterations: dict[int, dict[str, Any]] = {}
    evals: dict[int, dict[str, Any]] = {}
    checkpoints: list[dict[str, Any]] = []
    for record in read_lines(run_dir / "metrics.jsonl"):
        kind = record.get("event")
        start_time = start_time or _timestamp(record.get("time"))
        if kind == "start":
            start, status, end_time = record, None, None
        elif kind == "end":
            status, end_time = record["status"], _timestamp(record["time"])
        elif kind == "checkpoint":
            checkpoints.append(_checkpoint(record))
        elif kind == "eval" or (kind is None and "val/loss" in record):
            evals[record["step"]] = _eval(record, iterations)
        if kind is None and "train/loss" in record:
            iterations[record["step"]] = _iteration(record, start.get("mfu") or {})
    rows = [iterations[step] for step in sorted(iterations)]
    eval_rows = [evals[step] for step in sorted(evals)]
    return {
        "run_name": start.get("run_name") or run_dir.name,
        "start_time": start_time,
        "config": start.get("config") or {},
        "startup_info": {
            "timestamp": _timestamp(start.get("time")),
            "model": _select(start.get("model"), _MODEL),
            "optimizer": _select(start.get("optimizer"), _OPTIMIZER),
            "config": start.get("config") or {},
            "hardware": _select(start.get("hardware"), _HARDWARE),
        },
        "training_iterations": rows,
        "eval_steps": eval_rows,
        "checkpoints": checkpoints,
        "metadata": _select(start.get("metadata"), _METADATA),
        "status": status,
        "end_time": end_time,
        "summary": _summary(rows, eval_rows, len(checkpoints)),
    }


def _select(record: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    """The schema's keys first, each present; further ones after them."""
    record = record or {}
    return {**{name: record.get(name) for name in names}, **record}


def _iteration(record: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "iter": record["step"],
        "loss": record["train/loss"],
        "time_ms": record.get("train/step_time_ms"),
        "lr": record.get("train/lr"),
        "mfu": _mfu(record, constants),
        "memory": _group(record, "memory"),
        "gradients": _group(record, "grad"),
    }


def _mfu(record: Mapping[str, Any], constants: Mapping[str, Any]) -> dict[str, Any]:
    """The MFU dict of an iteration, derived from its rate and the run's constants."""
    mfu, rate = record.get("train/mfu"), record.get("train/tokens_per_sec")
    flops, devices = constants.get("flops_per_token"), constants.get("num_gpus") or 1
    achieved = None if rate is None or flops is None else rate * flops
    return {
        "mfu": mfu,
        "mfu_percent": None if mfu is None else 100 * mfu,
        "flops_achieved": achieved,
        "flops_achieved_per_gpu": None if achieved is None else achieved / devices,
        "achieved_tflops": None if achieved is None else achieved / 1e12,
        "tokens_per_sec": rate,
        "tokens_per_sec_per_gpu": None if rate is None else rate / devices,
        **constants,
    }


def _group(record: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Undo `flatten`: `grad/global_norm`, `grad/layers/wte` -> `{"global_norm": …, "layers": {"wte": …}}`."""
    group: dict[str, Any] = {}
    for name, value in record.items():
        if name.startswith(prefix + "/"):
            inner, _, leaf = name.removeprefix(prefix + "/").partition("/")
            if leaf:
                group.setdefault(inner, {})[leaf] = value
            else:
                group[inner] = value
    if prefix == "grad" and "global_norm" not in group and record.get("train/grad_norm") is not None:
        group["global_norm"] = record["train/grad_norm"]
    return group


def _eval(record: Mapping[str, Any], iterations: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    step = record["step"]
    same = iterations.get(step, {})
    return {
        "iter": step,
        "train_loss": record.get("train/loss", same.get("loss")),
        "val_loss": record.get("val/loss", record.get("val_loss")),
        "lr": record.get("train/lr", record.get("lr", same.get("lr"))),
        "timestamp": _timestamp(record.get("time")),
    }


def _checkpoint(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "iter": record.get("step"),
        "val_loss": record.get("val_loss", record.get("val/loss")),
        "path": record.get("path"),
        "timestamp": _timestamp(record.get("time")),
    }


def _summary(
    rows: list[dict[str, Any]], evals: list[dict[str, Any]], checkpoints: int
) -> dict[str, float | int | None]:
    val_losses = [row["val_loss"] for row in evals if row["val_loss"] is not None]
    return {
        "total_iterations": len(rows),
        "final_iter": rows[-1]["iter"] if rows else None,
        "final_train_loss": rows[-1]["loss"] if rows else None,
        "best_val_loss": min(val_losses, default=None),
        "avg_time_ms": _mean([row["time_ms"] for row in rows]),
        "avg_mfu": _mean([row["mfu"]["mfu"] for row in rows]),
        "total_eval_steps": len(evals),
        "total_checkpoints": checkpoints,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _timestamp(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))

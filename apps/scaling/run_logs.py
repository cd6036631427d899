"""Measurements from wherever they are: a sweep's results.csv, run folders (metrics.jsonl), or text logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from log_lines import Spoken, named_budget, named_depth
from measurement import COLUMNS, NEEDED, WHOLE, Measurement, ResultsError, read_results

from gpt_core.monitor import RunError, read_run
from gpt_core.monitor.jsonl import read_lines

SKIPPED_STEPS = 10
"""First steps, left out of mean MFU: compilation and cold caches."""


class Unusable(ValueError):
    """Why a run is no measurement."""


def gather(source: Path) -> tuple[list[Measurement], list[str]]:
    """The finished runs of a results.csv, a folder of a sweep, runs or logs, one run folder or one log; and warnings.

    In a folder results.csv goes before metrics.jsonl, and that before text logs beside it. Runs that are not finished
    are named in a warning and left out. Raises ResultsError where nothing is found, or nothing is usable.
    """
    if not source.exists():
        raise ResultsError(f"{source}: no such file or folder; give a results.csv, or a folder of runs or logs")
    if source.is_dir() and (source / "results.csv").exists():
        source = source / "results.csv"
    if source.suffix == ".csv":
        rows, warnings = read_results(source)
    else:
        rows, warnings = _from_logs(source)
    if not rows:
        heard = "".join(f"\n  {warning}" for warning in warnings)
        raise ResultsError(f"{source}: no finished run of a known compute budget{heard}")
    return rows, warnings


def _from_logs(source: Path) -> tuple[list[Measurement], list[str]]:
    rows, warnings = [], []
    for path in find_logs(source):
        try:
            row, missing = from_text(path) if path.suffix in (".log", ".txt") else from_run(path)
        except (Unusable, RunError) as error:
            warnings.append(f"left out: {error}")
            continue
        rows.append(row)
        if missing:
            warnings.append(f"{path}: does not say {', '.join(missing)}")
    return rows, warnings


def find_logs(source: Path) -> list[Path]:
    """Run folders and *.jsonl below `source`, and *.log and *.txt that no jsonl stands for."""
    if source.is_file():
        return [source]
    structured = sorted(source.rglob("*.jsonl"))
    runs = {path.parent for path in structured if path.name == "metrics.jsonl"}
    others = [path for path in structured if path.parent not in runs]
    spoken_for = {path.with_suffix("") for path in others}
    texts = [path for path in sorted([*source.rglob("*.log"), *source.rglob("*.txt")])]
    texts = [
        path for path in texts if path.with_suffix("") not in spoken_for and not runs & {path.parent, *path.parents}
    ]
    return [*sorted(runs), *others, *texts]


def from_run(path: Path) -> tuple[Measurement, list[str]]:
    """A run folder or jsonl file, and the names of what it does not tell. Unusable: not finished, not of a budget."""
    run = read_run(path)
    file = path / "metrics.jsonl" if path.is_dir() else path
    spoken = Spoken.of(line for record in read_lines(file) for line in str(record.get("message", "")).splitlines())
    steps = spoken.facts.get("num_iterations") or run.start.get("max_steps")
    final = run.evals[-1] if run.curve("val/bits_per_byte") else None
    if run.status != "completed" or final is None or final.step != steps:
        at = run.evals[-1].step if run.evals else "?"
        raise Unusable(f"{path}: {run.status}, last evaluation in bits per byte at step {at} of {steps}")
    times = run.curve("train/step_time_ms")
    reported = {point.step: 1e-3 * point.metrics["train/step_time_ms"] for point in times}
    figures = {
        **spoken.facts,
        **_configured(run.start.get("config") or {}),
        "num_iterations": steps,
        "core_score": _first_known(run.last("core/score"), run.last("core/partial")),
        "train_time_sec": final.metrics.get("val/train_time_s") or _total_seconds(reported),
        "cpu_time_sec": final.metrics.get("val/train_cpu_s"),
        "mfu": _mean({point.step: point.metrics["train/mfu"] for point in run.curve("train/mfu")}),
    }
    constants = run.start.get("mfu") or {}
    for name, key in (("batch", "tokens_per_iter"), ("flops_per_token", "flops_per_token")):
        figures.setdefault(name, constants.get(key))
    figures.setdefault("params_total", (run.start.get("model") or {}).get("total_params"))
    return _measurement(path, run.name, figures, final.metrics["val/bits_per_byte"])


def from_text(path: Path) -> tuple[Measurement, list[str]]:
    """A log of the known lines, and the names of what it does not tell. Unusable as `from_run`."""
    spoken = Spoken.of(path.read_text(encoding="utf-8", errors="replace").splitlines())
    steps = spoken.facts.get("num_iterations") or spoken.last_of
    if not spoken.bpb or not steps:
        raise Unusable(f"{path}: no line with {'validation bits per byte' if steps else 'the number of iterations'}")
    last = max(spoken.bpb)
    if last < steps:
        raise Unusable(f"{path}: unfinished, last validation at step {last} of {steps:.0f}")
    core = spoken.core.get(max(spoken.core)) if spoken.core else None
    figures: dict[str, Any] = {
        **spoken.facts,
        "num_iterations": steps,
        "core_score": core,
        "train_time_sec": _total_seconds(spoken.seconds) if max(spoken.seconds, default=0) >= steps - 1 else None,
        "mfu": _mean(spoken.mfu),
    }
    return _measurement(path, path.stem, figures, spoken.bpb[last])


def _measurement(path: Path, name: str, figures: dict[str, Any], bpb: float) -> tuple[Measurement, list[str]]:
    figures = {key: value for key, value in figures.items() if value is not None}
    for key, found in (("flops_budget", named_budget(name)), ("depth", named_depth(name))):
        if found is not None:
            figures.setdefault(key, found)
    if "tokens_trained" not in figures and "batch" in figures:
        figures["tokens_trained"] = figures["batch"] * figures["num_iterations"]
    figures |= {"val_bpb": bpb, "run": name}
    lacking = [key for key in NEEDED if key not in figures]
    if lacking:
        raise Unusable(f"{path}: does not say {', '.join(lacking)}")
    whole: dict[str, Any] = {key: int(value) if key in WHOLE else value for key, value in figures.items()}
    return Measurement(**whole), [key for key in COLUMNS if key not in figures and key not in _SELDOM]


_SELDOM = {"core_score", "lr_scale", "mfu", "params_value_embeds", "params_scalars", "cpu_time_sec", "seed"}
"""Columns whose absence is no news."""


def _configured(tree: Mapping[str, Any]) -> dict[str, Any]:
    scaling, general, model = (tree.get(name) or {} for name in ("scaling", "general", "model"))
    kwargs = model.get("module_kwargs") or {}
    found = {
        "flops_budget": scaling.get("target_flops") if scaling.get("steps_by") == "target_flops" else None,
        "depth": scaling.get("depth") or kwargs.get("n_layer"),
        "model_dim": kwargs.get("n_embd"),
        "seed": general.get("seed"),
        "lr_scale": ((tree.get("optimizer") or {}).get("module_kwargs") or {}).get("rate_factor"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _first_known(*values: float | None) -> float | None:
    """CORE over all items, else over `eval.limit` of each task (500, as in nanochat's study)."""
    return next((value for value in values if value is not None), None)


def _mean(values: Mapping[int, float]) -> float | None:
    kept = [value for step, value in values.items() if step > SKIPPED_STEPS]
    return sum(kept) / len(kept) if kept else None


def _total_seconds(reports: Mapping[int, float]) -> float | None:
    """Of all steps, where each report holds the mean time of those since the one before. Steps count from 0 or 1."""
    steps = sorted(reports)
    before = [min(0, steps[0] - 1), *steps] if steps else []
    return sum(reports[step] * (step - last) for last, step in zip(before, steps, strict=False)) or None

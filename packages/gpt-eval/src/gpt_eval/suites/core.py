"""CORE: DCLM's 22 low-variance tasks, a plain mean of centered accuracies (arXiv 2406.11794, nanochat)."""

import csv
import hashlib
import io
import math
from dataclasses import replace

from gpt_eval.aggregate import Benchmark, Category, Rule
from gpt_eval.data.bundle import Bundle
from gpt_eval.errors import BundleError
from gpt_eval.suites.tables import builtin, table
from gpt_eval.task import Task

METADATA = "eval_meta_data.csv"
"""Baselines of nanochat's evaluation bundle: columns "Eval Task" and "Random baseline", in percent."""


def core(bundle: Bundle) -> tuple[list[Task], Rule]:
    """The 22 tasks, with the baselines of the bundle's `eval_meta_data.csv` where it has one, else the shipped ones."""
    content = table("core.yaml")
    baselines, source = bundle_baselines(bundle)
    tasks = []
    if baselines and (absent := [entry["name"] for entry in content["benchmarks"] if entry["name"] not in baselines]):
        source += f"; core.yaml of gpt-eval for {', '.join(absent)}"
    for entry in content["benchmarks"]:
        percent = baselines.get(entry["name"], entry["percent"])
        base = builtin()[entry.get("task", entry["name"])].task
        tasks.append(
            replace(
                base,
                name=entry["name"],
                num_fewshot=entry["shots"],
                baseline=percent / 100,
                category=content["label"],
                **content["overrides"],
            )
        )
    benchmarks = tuple(Benchmark(task.name, task.num_fewshot, task.baseline) for task in tasks)
    rule = Rule((Category(content["label"], benchmarks, complete=False),), source=source, protocol="core")
    return tasks, rule


def bundle_baselines(bundle: Bundle) -> tuple[dict[str, float], str]:
    """({task: percent}, their source); empty for a bundle without the table. Raises BundleError for a wrong one."""
    path = bundle.folder / METADATA
    if not path.is_file():
        return {}, "core.yaml of gpt-eval (DCLM eval_meta_data_v1.csv)"
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: byte {error.start} is not UTF-8; save the table as UTF-8") from error
    found = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), 2):
        try:
            percent = float(row["Random baseline"])
            found[row["Eval Task"]] = percent
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f'{path}:{number}: expected "Eval Task" and a number in "Random baseline"') from error
        if not math.isfinite(percent) or not 0 <= percent < 100:
            raise BundleError(f"{path}:{number}: a baseline of {percent} percent, expected at least 0 and below 100")
    if not found:
        raise BundleError(f"{path}: no rows; expected a line per task, or remove the table")
    return found, f"{METADATA} sha256 {hashlib.sha256(data).hexdigest()}"

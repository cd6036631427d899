"""The gauntlets of llm-foundry: v0.1, v0.2, v0.3; "gauntlet" is the newest."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gpt_eval.aggregate import Benchmark, Category, Rule
from gpt_eval.suites.tables import builtin, table
from gpt_eval.task import Task

NEWEST = "gauntlet-v0.3"


def versions() -> list[str]:
    """The gauntlets there are, oldest first."""
    return sorted(table("gauntlet.yaml"))


def gauntlet(name: str) -> tuple[list[Task], Rule]:
    """The tasks of a version and how they are averaged."""
    content = table("gauntlet.yaml")[name]
    settings = content.get("settings", {})
    tasks, categories = [], []
    for category, benchmarks in content["categories"].items():
        tasks += [_task(n, shots, base, category, settings) for n, (shots, base) in benchmarks.items()]
        members = tuple(Benchmark(n, shots, base) for n, (shots, base) in benchmarks.items())
        categories.append(Category(category, members))
    tasks += [_task(n, shots, base, "", settings) for n, (shots, base) in content.get("also", {}).items()]
    rule = Rule(
        tuple(categories),
        MappingProxyType({content["average"]: tuple(content["over"])}),
        source=name,
        protocol="foundry",
    )
    return tasks, rule


def _task(name: str, shots: int, baseline: float, category: str, settings: dict[str, dict[str, Any]]) -> Task:
    return replace(
        builtin()[name].task, num_fewshot=shots, baseline=float(baseline), category=category, **settings.get(name, {})
    )

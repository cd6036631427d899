"""The tables of the built-in benchmarks and suites, read from the YAML files beside this module."""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from gpt_eval.data.index import Entry, parse_entry


@cache
def builtin() -> dict[str, Entry]:
    """Every built-in benchmark by name; `rows` is the size of the published file."""
    names = ("tasks.yaml", "chat.yaml")
    entries = [parse_entry(values, name) for name in names for values in table(name)["tasks"]]
    return {entry.task.name: entry for entry in entries}


@cache
def table(name: str) -> dict[str, Any]:
    """One of the YAML files."""
    return yaml.safe_load((files("gpt_eval.suites") / name).read_text(encoding="utf-8"))

"""index.yaml of a bundle: a list of tasks, each with the keys below. Adding a benchmark is one entry.

    tasks:
      - {name: copa, file: commonsense_reasoning/copa.jsonl, type: mc, shots: 0, base: 0.5, sha256: 3f…, rows: 100}

type: mc, lm, schema, gen or code, the name of a module of `gpt_eval.types`, or a dotted path. shots, delim, base: the
number of examples, the continuation delimiter, the accuracy of guessing. Every other field of `Task` goes by its own
name, and what only the type knows into `options`. sha256 and rows describe the file and are checked when it is read.
hub: {dataset, config, split, columns: {context: [Body, Question], continuation: [Answer]}} lets `apps/evaluate fetch`
make the file: each field is a column, or several as text with a space between.
notes, tier and core22 are for people, except that settings written as YAML in notes ("has_categories: true") count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from gpt_eval.errors import BundleError
from gpt_eval.task import Task

TYPES = {
    "mc": "multiple_choice",
    "lm": "language_modeling",
    "gen": "generation",
    "generation_task_with_answers": "generation",
    "code_evaluation": "code",
}
SHORT = {"shots": "num_fewshot", "delim": "continuation_delimiter", "base": "baseline"}
ABOUT_FILE = ("sha256", "rows", "hub")
FOR_PEOPLE = ("notes", "tier", "core22", "source", "licence")
OPTIONS = {
    "cot_delimiter": "cot_delimiter",
    "normalize": "normalize",
    "do_normalization": "normalize",
    "stop": "stops",
    "early_stopping_criteria": "stops",
    "max_new_tokens": "max_new_tokens",
    "pass_at_k": "pass_at_k",
    "generations_per_sample": "generations_per_sample",
}
"""Settings that may stand in an entry or its notes and belong to the type."""

_FIELDS = frozenset(each.name for each in fields(Task))
_EXPECTED: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "type": str,
    "file": str,
    "num_fewshot": int,
    "baseline": (int, float),
    "category": str,
    "continuation_delimiter": str,
    "example_delimiter": str,
    "prompt_string": str,
    "prelimiter": str,
    "has_categories": bool,
    "fewshot_seed": int,
    "options": dict,
}


@dataclass(frozen=True)
class Entry:
    """A task of an index, and what its file must be."""

    task: Task
    sha256: str | None = None
    rows: int | None = None
    hub: Mapping[str, Any] | None = None
    """dataset, config, split, columns."""
    people: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What stands there for people."""


def read_index(path: Path) -> dict[str, Entry]:
    """The entries of an index by name. Raises BundleError that names the file and the entry."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BundleError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BundleError(f"{path}: expected `tasks:` with a list of entries, got {type(content).__name__}")
    found: dict[str, Entry] = {}
    for number, values in enumerate(entries, 1):
        entry = parse_entry(values, f"{path}: entry {number}")
        if entry.task.name in found:
            raise BundleError(f"{path}: entry {number}: {entry.task.name} is there twice; give each its own name")
        found[entry.task.name] = entry
    return found


def parse_entry(values: Any, where: str) -> Entry:
    """A task from the mapping that describes it; `where` begins the message of a BundleError."""
    if not isinstance(values, dict):
        raise BundleError(f"{where}: got {type(values).__name__}, expected a mapping")
    where = f"{where} ({values.get('name', 'no name')})"
    settings = {**_noted(values.get("notes")), **values}
    known = [*_FIELDS, *SHORT, *ABOUT_FILE, *FOR_PEOPLE, *OPTIONS]
    for key in values:
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            raise BundleError(f"{where}: no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    options = {OPTIONS[key]: value for key, value in settings.items() if key in OPTIONS}
    given = {SHORT.get(key, key): value for key, value in settings.items() if value is not None}
    given = {key: value for key, value in given.items() if key in _FIELDS}
    for key, value in given.items():
        if not isinstance(value, _EXPECTED[key]) or isinstance(value, bool) != (_EXPECTED[key] is bool):
            raise BundleError(f"{where}: {key} is {value!r}, expected {_EXPECTED[key]}")
    for key in ("name", "type", "file"):
        if key not in given:
            raise BundleError(f"{where}: no {key!r}; every task has name, type and file")
    given["type"] = TYPES.get(given["type"], given["type"])
    given["options"] = MappingProxyType({**options, **given.get("options", {})})
    if not 0.0 <= given.get("baseline", 0.0) < 1.0:
        raise BundleError(f"{where}: base is {given['baseline']}, expected a fraction, at least 0 and below 1")
    if given.get("num_fewshot", 0) < 0:
        raise BundleError(f"{where}: shots is {given['num_fewshot']}, expected at least 0")
    digest, rows = values.get("sha256"), values.get("rows")
    if digest is not None and not (isinstance(digest, str) and len(digest) == 64):
        raise BundleError(f"{where}: sha256 is {digest!r}, expected 64 hexadecimal digits, in quotes")
    if rows is not None and (not isinstance(rows, int) or rows < 1):
        raise BundleError(f"{where}: rows is {rows!r}, expected a number of at least 1")
    people = {key: values[key] for key in FOR_PEOPLE if key in values}
    return Entry(Task(**given), digest, rows, _hub(values.get("hub"), where), MappingProxyType(people))


def _hub(values: Any, where: str) -> Mapping[str, Any] | None:
    """A data set of the hub, checked."""
    if values is None:
        return None
    columns = values.get("columns") if isinstance(values, dict) else None
    whole = isinstance(columns, dict) and all(isinstance(names, list) and names for names in columns.values())
    if not whole or not {"dataset", "split"} <= values.keys() <= {"dataset", "config", "split", "columns"}:
        raise BundleError(
            f"{where}: hub is {values!r}, expected {{dataset, split, columns: {{field: [column, ...]}}}}, maybe config"
        )
    return MappingProxyType(values)


def _noted(notes: Any) -> dict[str, Any]:
    """Settings among the notes; prose has none."""
    if not isinstance(notes, str):
        return {}
    try:
        found = yaml.safe_load("{" + notes + "}")
    except yaml.YAMLError:
        return {}
    known = {"has_categories", "prelimiter", "prompt_string", "example_delimiter", *OPTIONS}
    return {key: value for key, value in found.items() if key in known and value is not None}

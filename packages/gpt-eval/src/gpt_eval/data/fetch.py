"""Benchmarks from their hubs into a bundle: rows converted, written as JSONL, with their sha256 in the index."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from gpt_eval.chat import convert as chat
from gpt_eval.data.bundle import INDEX, inside
from gpt_eval.data.hub import ELSEWHERE, HUB
from gpt_eval.data.index import read_index
from gpt_eval.errors import BundleError, EvaluationError
from gpt_eval.suites.chatcore import SUITES as CHAT_SUITES
from gpt_eval.suites.gauntlet import NEWEST, gauntlet, versions
from gpt_eval.suites.tables import builtin, table
from gpt_eval.task import Task

Load = Callable[[str, str | None, str], Iterable[Mapping[str, Any]]]
"""(data set, configuration, split) -> rows."""


def fetch(names: Sequence[str], folder: str | Path, load: Load | None = None) -> Iterator[tuple[Path, int]]:
    """Fetches tasks, or all of a suite, and yields (file, rows) as each is written.

    Files replace those of the same name, and entries of `index.yaml` are added or brought up to date; its comments are
    lost. load: for a mirror of one's own; the hub's `datasets` otherwise.

    Raises EvaluationError for unknown names and for tasks that no hub has (before anything is fetched), for a hub that
    cannot be reached, and for rows that it did not expect.
    """
    folder = Path(folder)
    index = folder / INDEX
    own = {name: entry for name, entry in (read_index(index) if index.is_file() else {}).items() if entry.hub}
    tasks = [task for name in names for task in ([own[name].task] if name in own else _named(name))]
    for task in tasks:
        inside(task.file)
    homeless = [task.name for task in tasks if task.name not in own and _source(task.name) is None]
    if len(homeless) == len(tasks):
        raise EvaluationError(f"{', '.join(homeless)}: no hub has it; {ELSEWHERE}")
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        if task.name in own:
            hub = own[task.name].hub or {}
            yield _write(task, rows := _by_columns(hub, load or hub_rows), folder, {"hub": dict(hub)}), len(rows)
        elif task.name not in homeless:
            rows = converted(task.name, load or hub_rows)
            yield _write(task, rows, folder, {"source": _source(task.name)}), len(rows)
    if homeless:
        raise EvaluationError(f"fetched the others, but not {', '.join(homeless)}: no hub has them; {ELSEWHERE}")


def converted(name: str, load: Load) -> list[dict[str, Any]]:
    """All rows of a task. Raises EvaluationError that names data set and row for one that cannot be converted."""
    if name in chat.MADE:
        return chat.MADE[name]()
    if name in chat.SOURCES:
        source = chat.SOURCES[name]
        given = list(load(source.dataset, source.config, source.split))
        rows = _each(given, lambda row: [source.convert(row)], source.dataset)
        return [dict(row) for row in chat.shuffled(rows)] if source.shuffled else rows
    origin = HUB[name]
    configs = origin.config if isinstance(origin.config, tuple) else (origin.config,)
    rows = [row for config in configs for row in load(origin.dataset, config, origin.split)]
    return _each(rows, origin.convert, origin.dataset)


def hub_rows(dataset: str, config: str | None, split: str) -> Iterable[Mapping[str, Any]]:
    """The rows of a split, from the Hugging Face hub. Raises EvaluationError without network or library."""
    try:
        import datasets
    except ImportError as error:
        raise EvaluationError('fetching needs the library datasets: pip install "gpt-eval[hub]"') from error
    try:
        return datasets.load_dataset(dataset, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()
        raise EvaluationError(
            f"{dataset} ({split}) cannot be fetched: {type(error).__name__}: {first[0] if first else ''}; is there a "
            "network, and does the data set need a login? A file of one's own in the bundle does as well"
        ) from error


def _named(name: str) -> list[Task]:
    """The task of a name, or those of a suite, each file once."""
    if name in builtin():
        return [builtin()[name].task]
    if name in ("gauntlet", *versions()):
        return _by_file(task.file for task in gauntlet(NEWEST if name == "gauntlet" else name)[0])
    if name == "core":
        entries = table("core.yaml")["benchmarks"]
        return _by_file(builtin()[entry.get("task", entry["name"])].task.file for entry in entries)
    if name in CHAT_SUITES:
        return [builtin()[task].task for task in CHAT_SUITES[name]]
    near = get_close_matches(name, [*builtin(), "gauntlet", "core", *CHAT_SUITES], 3)
    raise EvaluationError(f"unknown task {name!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))


def _by_file(files: Iterable[str]) -> list[Task]:
    """The built-in tasks of some files, each once."""
    owners = {entry.task.file: entry.task for entry in reversed(list(builtin().values()))}
    return [owners[file] for file in dict.fromkeys(files)]


def _each(
    rows: Sequence[Mapping[str, Any]], convert: Callable[[Mapping[str, Any]], list[dict[str, Any]]], dataset: str
) -> list[dict[str, Any]]:
    found = []
    for number, row in enumerate(rows):
        try:
            found += convert(row)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise EvaluationError(
                f"{dataset}: row {number} is not as expected ({type(error).__name__}: {error}; it has "
                f"{', '.join(map(str, row))}); the data set has changed, convert it by hand"
            ) from error
    if not found:
        raise EvaluationError(f"{dataset}: no rows")
    return found


def _by_columns(hub: Mapping[str, Any], load: Load) -> list[dict[str, Any]]:
    """Rows whose fields are columns of a data set; several columns become one text."""

    def field(row: Mapping[str, Any], names: Sequence[str]) -> Any:
        return row[names[0]] if len(names) == 1 else " ".join(str(row[name]) for name in names)

    rows = list(load(hub["dataset"], hub.get("config"), hub["split"]))
    return _each(rows, lambda row: [{key: field(row, names) for key, names in hub["columns"].items()}], hub["dataset"])


def _write(task: Task, rows: Sequence[Mapping[str, Any]], folder: Path, origin: Mapping[str, Any]) -> Path:
    """The file and its entry, each replaced in one step."""
    index = folder / INDEX
    entries = _entries(index)  # first, so that a wrong one leaves all as it was
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path = folder / task.file
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, data)
    entry = _entry(task) | dict(origin) | {"rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()}
    kept = [_kept(other, task.file) for other in entries if other.get("name") != task.name]
    content = yaml.safe_dump({"tasks": [*kept, entry]}, sort_keys=False, allow_unicode=True, width=1000)
    _replace(index, content.encode())
    return path


def _entry(task: Task) -> dict[str, Any]:
    """A task as an index has it: what differs from the defaults."""
    plain = Task(name=task.name, type=task.type, file=task.file)
    names = [name for name in Task.__dataclass_fields__ if name != "options"]
    given = {name: getattr(task, name) for name in names if name in ("name", "type", "file")}
    given |= {name: getattr(task, name) for name in names if getattr(task, name) != getattr(plain, name)}
    if task.options:
        given["options"] = dict(task.options)
    return given


def _kept(entry: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Another entry; what it says of the file that is replaced is no longer so."""
    stale = ("rows", "sha256") if entry.get("file") == file else ()
    return {key: value for key, value in entry.items() if key not in stale}


def _source(name: str) -> str | None:
    """Where a task's rows are from, in words; None where no hub has them."""
    if name in chat.MADE:
        return "made by gpt-eval"
    source = chat.SOURCES.get(name) or HUB.get(name)
    return None if source is None else f"{source.dataset}, split {source.split}, converted by gpt-eval"


def _entries(index: Path) -> list[dict[str, Any]]:
    if not index.is_file():
        return []
    content = yaml.safe_load(index.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("tasks"), list):
        raise BundleError(f"{index}: expected `tasks:` with a list of entries; mend it or take another folder")
    return content["tasks"]


def _replace(path: Path, data: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(data)
    os.replace(aside, path)

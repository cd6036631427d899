"""The mixture of conversations for mid-training: SmolTalk, MMLU and GSM8K, in exact numbers (spec: 567,315 + 7,850)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..chat import gsm8k, mmlu, smoltalk
from ..errors import DatasetError
from . import tables
from .hub import HubFiles, hub_files
from .sources import Request
from .tables import Table

SEED = 42
"""Of every shuffle, drawn as the `datasets` library does: `default_rng(seed).permutation(n)`."""
CARVED_ONE_IN = 20
"""The share of GSM8K's training rows that is held out where its test split is left alone."""
VAL_FROM = ("test", "train")


@dataclass(frozen=True)
class Task:
    """Rows of one dataset that go into one split."""

    name: str
    side: str
    tables: tuple[Table, ...]
    rows: np.ndarray
    """Numbers of the rows, counted over all tables, in the order that they have before the mixture is shuffled."""
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """A row -> a conversation; ValueError for rows that are none."""


@dataclass(frozen=True)
class ChatSource:
    """Conversations of several tasks, in a fixed order."""

    description: str
    license: str
    tasks: tuple[Task, ...]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class _Wanted:
    """A line of the mixture's table."""

    name: str
    repository: str
    subset: str
    split: str
    side: str
    count: int
    convert: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    shuffled: bool = False
    """The rows are the first of a shuffled order, not the first of the file."""


MIXTURE = (
    _Wanted("smoltalk", "HuggingFaceTB/smoltalk", "all", "train", "train", 460_000, smoltalk, shuffled=True),
    _Wanted("mmlu", "cais/mmlu", "auxiliary_train", "train", "train", 99_842, mmlu),
    _Wanted("gsm8k", "openai/gsm8k", "main", "train", "train", 7_473, gsm8k),
    _Wanted("smoltalk", "HuggingFaceTB/smoltalk", "all", "test", "val", 5_000, smoltalk, shuffled=True),
    _Wanted("mmlu", "cais/mmlu", "all", "validation", "val", 1_531, mmlu),
    _Wanted("gsm8k", "openai/gsm8k", "main", "test", "val", 1_319, gsm8k),
)


def task_mixture_source(request: Request) -> ChatSource:
    """Find (and download) the rows of all tasks.

    Local copies: one folder that holds copies of the repositories as `smoltalk/`, `mmlu/` and `gsm8k/`.
    Errors: DatasetError if a task is missing or has too few rows, unless `allow_missing` was chosen.
    """
    if request.options["val_from"] not in VAL_FROM:
        raise ValueError(f"val_from is {request.options['val_from']!r}, expected one of {', '.join(VAL_FROM)}.")
    if len(request.texts) > 1 or any(not path.is_dir() for path in request.texts):
        raise DatasetError("task_mixture takes one folder, with copies of the repositories: smoltalk, mmlu, gsm8k.")
    carve = request.options["val_from"] == "train"
    tasks: list[Task] = []
    missing: list[str] = []
    known: dict[tuple[str, str], HubFiles] = {}
    for wanted in MIXTURE:
        if carve and (wanted.name, wanted.side) == ("gsm8k", "val"):
            continue
        try:
            key = (wanted.repository, wanted.subset)
            if key not in known:
                known[key] = _files(wanted, request)
            task = _task(wanted, known[key], request.options["allow_missing"])
            if len(task.rows) < wanted.count:
                missing.append(f"{wanted.name} ({wanted.side}): {wanted.count - len(task.rows)} of {wanted.count} rows")
                request.progress.say(f"goes on without {missing[-1]}")
            tasks.append(task)
        except DatasetError as error:
            if not request.options["allow_missing"]:
                raise DatasetError(
                    f"{error} Copies of the three repositories are taken from one folder that holds them as smoltalk, "
                    "mmlu and gsm8k (--text DIR). To take what is there: --allow-missing."
                ) from error
            request.progress.say(f"left out {wanted.name} ({wanted.side}): {error}")
            missing.append(f"{wanted.name} ({wanted.side})")
    if not {"train", "val"} <= {task.side for task in tasks}:
        raise DatasetError(f"the mixture has nothing left for train or val: {', '.join(missing)} are missing.")
    tasks = _carved(tasks) if carve else tasks
    details = {"hub": [dict(files.details) for files in known.values()], "missing": missing, "seed": SEED}
    names = ", ".join(dict.fromkeys(task.name for task in tasks))
    return ChatSource(f"conversations: {names}", "see the datasets", tuple(tasks), details)


def _files(wanted: _Wanted, request: Request) -> HubFiles:
    if not request.texts:
        return hub_files(wanted.repository, wanted.subset, None)
    folder = Path(request.texts[0]) / wanted.name
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: is missing. Fetch it: `hf download {wanted.repository} --repo-type dataset --local-dir "
            f"{folder}`."
        )
    return hub_files(str(folder), wanted.subset, None)


def _task(wanted: _Wanted, files: HubFiles, fewer: bool) -> Task:
    """fewer: take what is there if that is less than wanted."""
    if wanted.split not in files.splits:
        raise DatasetError(
            f"{wanted.repository} ({wanted.subset}): has no split {wanted.split!r}, only {', '.join(files.splits)}."
        )
    found = tuple(replace(table, key=f"{wanted.name}/{table.key}") for table in files.tables(wanted.split))
    count = sum(tables.count_rows(table) for table in found)
    if count < wanted.count and not (fewer and count):
        raise DatasetError(
            f"{wanted.repository} ({wanted.subset}, {wanted.split}): has {count} rows, {wanted.count} are wanted."
        )
    rows = shuffled(count) if wanted.shuffled else np.arange(count)
    return Task(wanted.name, wanted.side, found, rows[: wanted.count], wanted.convert)


def _carved(tasks: Sequence[Task]) -> list[Task]:
    """Hold out a share of GSM8K's training rows, chosen by a shuffle, in place of its test split."""
    for number, task in enumerate(tasks):
        if (task.name, task.side) == ("gsm8k", "train"):
            order, count = shuffled(len(task.rows)), max(1, len(task.rows) // CARVED_ONE_IN)
            train, val = np.sort(task.rows[order[count:]]), np.sort(task.rows[order[:count]])
            rest = [*tasks[:number], replace(task, rows=train), *tasks[number + 1 :]]
            return [*rest, replace(task, side="val", rows=val)]
    return list(tasks)


def shuffled(count: int) -> np.ndarray:
    """The order in which `datasets.Dataset.shuffle(seed=42)` puts `count` rows."""
    return np.random.default_rng(SEED).permutation(count)

"""Rows of a JSONL file, read strictly: an error names file and line, nothing is skipped or mended."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt_eval.errors import BundleError
from gpt_eval.task import Row, Task, TaskType


def parse_rows(data: bytes, path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, one per line, in any order of their keys.

    A byte order mark at the beginning, Windows line ends and empty lines at the end are read over. Raises BundleError
    for everything else that is not UTF-8 or not one JSON object per line, and for a key that comes twice.
    """
    lines = data.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n") if data.strip() else []
    if not lines:
        raise BundleError(f"{path}: no rows; expected one JSON object per line")
    return [_object(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def check_rows(rows: Sequence[Row], task: Task, kind: TaskType, path: Path) -> None:
    """Raises BundleError for the first row that its type finds something wrong with.

    A type that names a list field in `SAME_LENGTH` has rows with equally many entries in it: the baseline of a task
    with 2 or 4 answers would mean nothing. `options: {variable_choices: true}` in the index says that it is meant.
    """
    same = None if task.options.get("variable_choices") else getattr(kind, "SAME_LENGTH", None)
    for number, row in enumerate(rows, 1):
        problem = kind.check_row(row, task)
        if problem is None and same is not None and len(row[same]) != len(rows[0][same]):
            problem = f"{same} has {len(row[same])} entries, the first row has {len(rows[0][same])}"
        if problem is not None:
            raise BundleError(f"{path}:{number}: {problem}; mend or remove the row ({task.name}, type {task.type})")


def _object(line: bytes, where: str) -> dict[str, Any]:
    if not line.strip():
        raise BundleError(f"{where}: an empty line, expected a JSON object; remove it")
    try:
        row = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{where}: byte {error.start} is not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise BundleError(f"{where}: not JSON, {error.msg} at column {error.colno}") from error
    except ValueError as error:  # a _BadObject, a number of thousands of digits
        raise BundleError(f"{where}: {error}") from error
    except RecursionError as error:
        raise BundleError(f"{where}: nested too deeply to be a row") from error
    if not isinstance(row, dict):
        raise BundleError(f"{where}: got {type(row).__name__}, expected a JSON object")
    return row


class _BadObject(ValueError):
    """JSON that Python would read and should not."""


def _unique(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise _BadObject(f"the key {twice!r} comes twice; keep one")
    return found


def _no_constant(name: str) -> None:
    raise _BadObject(f"{name} is not JSON; write a number or null")

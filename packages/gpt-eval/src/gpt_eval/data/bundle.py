"""A folder with benchmark data: JSONL files, and an index.yaml that says what they are."""

import hashlib
import importlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import cast

from gpt_eval.data.index import Entry, read_index
from gpt_eval.data.rows import check_rows, parse_rows
from gpt_eval.errors import BundleError
from gpt_eval.task import Row, Task, TaskType

INDEX = "index.yaml"


class Bundle:
    """The data of benchmarks in a folder.

    `index.yaml` is optional: files of built-in tasks are found by their usual path. Where it gives a file's sha256 or
    number of rows, they must be right.
    """

    def __init__(self, folder: str | Path):
        """Reads the index, not the data. Raises BundleError for a missing folder or a wrong index."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise BundleError(
                f"{self.folder}: no such folder; give the one with the benchmarks' JSONL files, or fill one with "
                "`apps/evaluate fetch TASK --bundle DIR`"
            )
        index = self.folder / INDEX
        self.entries: Mapping[str, Entry] = read_index(index) if index.is_file() else {}
        self._digests: dict[str, str] = {}

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of the index by name."""
        return {name: entry.task for name, entry in self.entries.items()}

    def has(self, file: str) -> bool:
        """Whether a file, relative to the folder, is there."""
        return (self.folder / inside(file)).is_file()

    def rows(self, task: Task) -> list[Row]:
        """All rows of a task's file, checked.

        Raises BundleError: no such file, one that is not the one that the index describes, or a wrong row (with the
        line).
        """
        path = self.folder / inside(task.file)
        data = self._read(task.file)
        self._check_digest(task.file, data)
        rows = parse_rows(data, path)
        for entry in self._about(task.file):
            if entry.rows not in (None, len(rows)):
                raise BundleError(
                    f"{path}: {len(rows)} rows, {INDEX} says {entry.rows}; the index is stale: fetch the task again, "
                    "or correct `rows`"
                )
        check_rows(rows, task, _type_of(task), path)
        return cast("list[Row]", rows)

    def sha256(self, task: Task) -> str:
        """Of the task's file, hexadecimal."""
        if task.file not in self._digests:
            self._check_digest(task.file, self._read(task.file))
        return self._digests[task.file]

    def _read(self, file: str) -> bytes:
        path = self.folder / inside(file)
        try:
            return path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path}: {error.strerror}; fetch it with `apps/evaluate fetch`, or correct `file` in {INDEX}"
            ) from error

    def _check_digest(self, file: str, data: bytes) -> None:
        digest = self._digests[file] = hashlib.sha256(data).hexdigest()
        for entry in self._about(file):
            if entry.sha256 not in (None, digest):
                raise BundleError(
                    f"{self.folder / file}: sha256 is {digest}, {INDEX} says {entry.sha256}; the file has changed "
                    "since it was indexed: fetch the task again, or correct the index"
                )

    def _about(self, file: str) -> list[Entry]:
        """The entries of a file: several tasks may share one, and what each says of it must be right."""
        return [each for each in self.entries.values() if PurePosixPath(each.task.file) == PurePosixPath(file)]


def inside(file: str) -> PurePosixPath:
    """A path that stays in the folder."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise BundleError(f"file is {file!r}, expected a path inside the bundle")
    return path


def _type_of(task: Task) -> TaskType:
    name = task.type if "." in task.type else f"gpt_eval.types.{task.type}"
    return cast("TaskType", importlib.import_module(name))

"""Writing one part: the unit of work, whose files appear together with a record, or are written again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..durable import write_json
from .encode import Encoded

Job = Callable[[], Encoded]


class Part(Protocol):
    """Work that is done whole or not at all, in jobs whose results are written in order."""

    @property
    def name(self) -> str:
        """Of its record; unique in a dataset."""
        ...

    @property
    def index(self) -> int:
        """The number of its files: `train_000012.bin`."""
        ...

    @property
    def weight(self) -> int:
        """Bytes of input."""
        ...

    def jobs(self) -> Iterator[Job]:
        """Reads the input; each job can run in another thread."""
        ...


@dataclass(frozen=True)
class FileRecord:
    items: int
    """Ids, or bytes of a mask."""
    sha256: str


@dataclass(frozen=True)
class PartRecord:
    """Proof that a part is finished, and what `dataset.json` will say about it."""

    files: dict[str, FileRecord]
    counts: dict[str, int]

    def save(self, path: Path) -> None:
        with writing(path):
            write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> PartRecord | None:
        """The record of a finished part, None if it is not finished."""
        if not path.is_file():
            return None
        content: dict[str, Any] = json.loads(path.read_text())
        return cls({key: FileRecord(**value) for key, value in content["files"].items()}, content["counts"])


def file_name(key: str, index: int) -> str:
    return f"{key}_{index:06d}.bin"


def write_part(part: Part, folder: Path, pool: Executor, ahead: int, on_weight: Callable[[int], None]) -> PartRecord:
    """Do the jobs of `part` in `pool` and write their results: aside, synced, renamed.

    ahead: jobs that may be read before the oldest is written, which bounds memory; on_weight: called with the bytes of
    input that are done.
    """
    files: dict[str, _File] = {}
    counts: Counter[str] = Counter()
    done = 0
    with ExitStack() as closing:
        for encoded in _in_order(pool, part.jobs(), ahead):
            for key, array in encoded.arrays.items():
                if key not in files:
                    files[key] = closing.enter_context(_File(folder / file_name(key, part.index)))
                files[key].write(array)
            counts.update(encoded.counts)
            done += encoded.weight
            on_weight(encoded.weight)
        on_weight(part.weight - done)  # what was estimated wrongly; from here on nothing stops it
        records = {key: file.finish() for key, file in files.items()}
    return PartRecord(records, dict(counts))


@contextmanager
def writing(path: Path) -> Generator[None]:
    """An OSError names the file, and says that what is finished is not lost."""
    try:
        yield
    except OSError as error:
        what = (
            f"{error.strerror}. What is finished is kept: make room if the disk is full, and run the same command again"
        )
        raise OSError(error.errno, what, str(path)) from error


def _in_order(pool: Executor, jobs: Iterable[Job], ahead: int) -> Iterator[Encoded]:
    waiting: deque[Future[Encoded]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class _File:
    """A `.bin` file on its way."""

    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_suffix(".tmp")
        self._file: BinaryIO = open(self._aside, "wb", buffering=0)  # noqa: SIM115  (closed by __exit__)
        self._digest, self._items = hashlib.sha256(), 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, array: np.ndarray) -> None:
        content = array.data.cast("B") if array.size else memoryview(b"")
        self._digest.update(content)
        self._items += array.size
        with writing(self._aside):
            while content:
                content = content[self._file.write(content) :]

    def finish(self) -> FileRecord:
        with writing(self._aside):
            os.fsync(self._file.fileno())
            os.replace(self._aside, self._path)
        return FileRecord(self._items, self._digest.hexdigest())

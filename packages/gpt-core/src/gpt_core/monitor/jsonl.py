"""`metrics.jsonl`: one strict JSON object per line, append-only, the source of truth of a run's history.

A metrics line is `{"step": 10, "time": 1.7e9, "train/loss": 2.3, …}`; an event line has `"event": kind` too.
A number that was not finite is `null` and listed under `"nonfinite"`. Each line is handed to the operating system
whole before `log` returns, so `kill -9` costs at most a torn last line, which the next start repairs.
"""

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .sinks import BaseSink, Number, Status
from .strict_json import dumps, loads, write_atomic


class JsonlSink(BaseSink):
    """Appends to `path`, repairing a torn last line first.

    `resume_step`: lines of later steps are removed, because a run resumed there will write them again.
    """

    def __init__(self, path: str | Path, *, resume_step: int | None = None, clock: Callable[[], float] = time.time):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._clock = clock
        repair(self.path)
        if resume_step is not None:
            self.truncate_after(resume_step)

    def log(self, step: int, metrics: Mapping[str, Number]) -> None:
        self._write({"step": step, "time": round(self._clock(), 3), **metrics})

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        self._write({"event": kind, "time": round(self._clock(), 3), **data})

    def summary(self, data: Mapping[str, Any]) -> None:
        self.event("summary", {"summary": dict(data)})

    def artifact(self, path: str | Path, name: str) -> None:
        self.event("artifact", {"name": name, "path": str(path)})

    def close(self, status: Status, error: str | None = None) -> None:
        self.event("end", {"status": status, "error": error})

    def truncate_after(self, step: int) -> None:
        """Remove the lines of steps beyond `step`, and the end of the earlier session. Lines without a step stay."""
        if not self.path.exists():
            return
        kept = [record for record in read_lines(self.path) if not _is_later(record, step)]
        write_atomic(self.path, "".join(dumps(record) + "\n" for record in kept))

    def _write(self, record: dict[str, Any]) -> None:
        line = (dumps(record) + "\n").encode()
        # Opened per line, written in one piece: nothing to leave open or unflushed, at some 20 µs a line.
        with open(self.path, "ab", buffering=0) as file:
            written = file.write(line)
        if written != len(line):
            repair(self.path)
            raise OSError(errno.ENOSPC, "only part of a line could be written, the disk is full", str(self.path))


def _is_later(record: Mapping[str, Any], step: int) -> bool:
    if record.get("event") in ("end", "summary"):
        return True
    at = record.get("step")
    return isinstance(at, int | float) and at > step


def repair(path: str | Path) -> None:
    """Finish or drop a last line without its newline, which a killed process may leave behind."""
    path = Path(path)
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, 2)
        tail, start = b"", end
        while start > 0 and b"\n" not in tail:
            size = min(65536, start)
            start -= size
            file.seek(start)
            tail = file.read(size) + tail
        last = tail.rpartition(b"\n")[2]
        if not last:
            return
        if _is_object(last):
            file.seek(end)
            file.write(b"\n")
        else:
            file.truncate(end - len(last))


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except ValueError:
        return False


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a JSONL file, in order. A torn last line (the run may be alive) is skipped.

    Raises ValueError with the line number for damage anywhere else.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            if _is_object(line):
                yield loads(line)
            elif line.endswith(b"\n"):
                raise ValueError(f"{path}:{number}: not a JSON object: {line[:60]!r}; the file is damaged")

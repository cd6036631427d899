"""samples.jsonl: one line per answered item, written while the evaluation runs, and where an interrupted one goes on.

The first line says what was asked of whom. A file is continued only by the same question: same model (by what it
answers to a probe, not by its name alone), protocol, settings and data of each task. A line that was being written
when the process was killed is dropped.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from gpt_eval.errors import EvaluationError
from gpt_eval.strict_json import dumps
from gpt_eval.task import Record

FORMAT = 1
PROBE_TOLERANCE = 0.02
"""Nats per token: what servers that batch in bfloat16 differ by. A few steps of training move some token further."""


def fingerprint(value: Any) -> str:
    """Hexadecimal digest of JSON values; equal for equal values."""
    return hashlib.sha256(dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def to_line(label: str, record: Record) -> str:
    """A record as strict JSON, with a line end; NaN becomes null."""
    fields = {"task": label, **{name: getattr(record, name) for name in Record.__dataclass_fields__}}
    return dumps(fields) + "\n"


def from_line(fields: Mapping[str, Any]) -> tuple[str, Record]:
    """(label of the task, record) of a parsed line."""
    values = {name: fields[name] for name in Record.__dataclass_fields__}
    values["correct"] = float("nan") if values["correct"] is None else values["correct"]
    values["metrics"] = {name: float("nan") if x is None else x for name, x in values["metrics"].items()}
    return fields["task"], Record(**values)


def read_samples(path: Path) -> tuple[dict[str, Any], dict[str, dict[int, Record]]]:
    """(first line, {label: {index: record}}) of a file; an unfinished last line is left out.

    Raises EvaluationError that names file and line for any other line that is not a record, OSError without a file.
    """
    header: dict[str, Any] = {}
    records: dict[str, dict[int, Record]] = {}
    with open(path, encoding="utf-8", newline="\n", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                fields = json.loads(line)
                if number == 1:
                    header = dict(fields["evaluation"])
                    continue
                label, record = from_line(fields)
            except (ValueError, KeyError, TypeError) as error:
                if not line.endswith("\n"):  # killed while writing it
                    break
                raise EvaluationError(
                    f"{path}:{number}: not a line of samples ({type(error).__name__}: {error}); "
                    "remove the file to evaluate anew"
                ) from error
            records.setdefault(label, {})[record.index] = record
    return header, records


def resume(path: Path, header: Mapping[str, Any]) -> dict[str, dict[int, Record]]:
    """The records of an interrupted evaluation with the same `header`; {} where there is no file.

    Raises EvaluationError that says what differs.
    """
    if not path.exists():
        return {}
    before, records = read_samples(path)
    if not before:  # killed before the first line was whole
        return {}
    reason = _difference(before, header) or _dropped(records, header)
    if reason:
        raise EvaluationError(
            f"{path} belongs to another evaluation: {reason}; give another output folder, "
            "or begin anew with resume=False (--no-resume)"
        )
    return records


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What makes two evaluations different, in words; None for the same.

    Their lists of tasks may differ, and the limit may grow: it changes no item.
    """
    for name in sorted(now.keys() | before.keys()):
        if name not in ("tasks", "probe", "limit") and before.get(name) != now.get(name):
            was, is_now = _unequal(before.get(name), now.get(name))
            return f"{name} was {was!r}, is now {is_now!r}"
    limits = [math.inf if entry.get("limit") is None else entry["limit"] for entry in (before, now)]
    if limits[1] < limits[0]:
        had = "all rows" if before.get("limit") is None else f"{before['limit']} rows of each task"
        return f"it is over {had}, and limit {now['limit']} would drop some"
    if not _same_probe(before.get("probe"), now.get("probe")):
        return f"the model {now.get('model')!r} answers a probe otherwise than it did: its weights have changed"
    for label in before.get("tasks", {}).keys() & now["tasks"].keys():
        if before["tasks"][label] != now["tasks"][label]:
            return f"{label} has other settings or data than it had"
    return None


def _unequal(before: Any, now: Any) -> tuple[Any, Any]:
    """Both; of two mappings, only the entries that are not equal."""
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return before, now
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    return {name: before.get(name) for name in sorted(names)}, {name: now.get(name) for name in sorted(names)}


def _dropped(records: Mapping[str, Mapping[int, Record]], now: Mapping[str, Any]) -> str | None:
    """Finished work on tasks that are no longer asked for, in words; None where there is none."""
    labels = [label for label in records if label not in now["tasks"]]
    if not labels:
        return None
    items = sum(len(records[label]) for label in labels)
    return f"it has {items} items of {', '.join(labels)}, which this list of tasks would drop"


def _same_probe(before: Sequence[float] | None, now: Sequence[float] | None) -> bool:
    if before is None or now is None:
        return before is now
    pairs = list(zip(before, now, strict=False))
    return len(before) == len(now) and all(abs(a - b) <= PROBE_TOLERANCE for a, b in pairs)


class SampleWriter:
    """Appends records to a file that begins with `header`; what was kept of an earlier evaluation comes first.

    The file is replaced in one step, so that a kill leaves either the old one or the new one.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], kept: Mapping[str, Mapping[int, Record]]):
        self.path, self._header = path, header
        self._file: TextIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rewrite(kept)

    def append(self, label: str, records: Iterable[Record]) -> None:
        """Returns when the operating system has them: they survive a kill of the process."""
        if self._file is None:
            self._file = open(self.path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115 (closed by close)
        try:
            self._file.write("".join(to_line(label, record) for record in records))
            self._file.flush()
        except OSError as error:
            raise _explained(error, self.path) from error

    def rewrite(self, records: Mapping[str, Mapping[int, Record]]) -> None:
        """The whole file anew: tasks in the order of `records`, items by index."""
        self.close()
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(aside, "w", encoding="utf-8", newline="\n") as file:
                file.write(dumps({"evaluation": self._header}) + "\n")
                for label, by_index in records.items():
                    file.writelines(to_line(label, by_index[index]) for index in sorted(by_index))
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path)
        except OSError as error:
            raise _explained(error, self.path) from error
        finally:
            aside.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what `append` could not write, and has said
                file.close()


def _explained(error: OSError, path: Path) -> OSError:
    """Says what a full disk means here."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    message = f"{os.strerror(error.errno)}; make room and run the same again: it goes on from what is there"
    return OSError(error.errno, message, str(path))

"""`evaluate`: a model, tasks and their data in; scores out."""

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from gpt_eval import runner
from gpt_eval.data.bundle import Bundle
from gpt_eval.errors import EvaluationError
from gpt_eval.fewshot import core_order
from gpt_eval.model import LanguageModel
from gpt_eval.progress import Progress, Silent
from gpt_eval.ranks import OneProcess, Ranks, from_first, together
from gpt_eval.results import Results, settings_of, summarize
from gpt_eval.samples import FORMAT, SampleWriter, fingerprint, resume
from gpt_eval.suites.chatcore import SUITES as CHAT_SUITES
from gpt_eval.suites.select import Selection, own_protocol, select
from gpt_eval.suites.tables import builtin
from gpt_eval.task import ProtocolName, Record, Row, Task, TaskType

Kept = dict[str, dict[int, Record]]
"""{label: {index: record}}."""


def evaluate(
    model: LanguageModel,
    tasks: str | Sequence[Task],
    bundle: str | Path | Bundle,
    *,
    protocol: ProtocolName | None = None,
    limit: int | None = None,
    output: str | Path | None = None,
    resume: bool = True,
    ranks: Ranks | None = None,
    allow_code_execution: bool = False,
    judge: Any = None,
    allow_self_judge: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Scores a model. With several ranks every one calls it, and every one returns the same results.

    Args:
        tasks: a suite ("gauntlet", "core", "chatcore", ...), names separated by commas, or tasks of one's own.
        bundle: the folder with the tasks' data.
        protocol: whose conventions, which makes it another benchmark. None: "core" for CORE, else "foundry".
        limit: only the first rows of each task (under "core", of nanochat's shuffled order, so that a sorted file is
            not seen from one end); the result is then marked partial. Shots come from all rows.
        output: folder for samples.jsonl (written as it goes) and results.json; None keeps nothing on disk.
        resume: go on from `output`/samples.jsonl where it belongs to the same evaluation; False begins anew.
        ranks: the processes that share the work; None is this one alone.
        allow_code_execution: let tasks run programs that the model writes.
        judge: has `id` and `chat(messages, ...)`; for benchmarks that a judge scores.
        allow_self_judge: let a model judge itself; the result says so.
        seed: of sampled generation.
        progress: told how it goes on, on rank 0.

    Raises EvaluationError (a ValueError) or one of its kinds before anything is asked of the model: unknown tasks,
    missing, stale or wrong data, items longer than the model, something that the model, the caller or a missing judge
    does not allow, an `output` that belongs to another evaluation.
    """
    prepared = prepare(
        model,
        tasks,
        bundle,
        protocol=protocol,
        limit=limit,
        output=output,
        resume=resume,
        ranks=ranks,
        allow_code_execution=allow_code_execution,
        judge=judge,
        allow_self_judge=allow_self_judge,
        seed=seed,
    )
    return prepared.run(progress)


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that has been checked and not yet begun; nothing but a probe has been asked of the model."""

    model: LanguageModel
    selection: Selection
    tasks: Sequence[tuple[Task, TaskType, Sequence[Row]]]
    bundle: Bundle
    protocol: ProtocolName
    limit: int | None
    output: Path | None
    ranks: Ranks
    judge: Any
    seed: int
    plans: Sequence[runner.Plan]
    kept: Kept
    header: Mapping[str, Any]

    def run(self, progress: Progress | None = None) -> Results:
        """Asks, grades, writes. Collective.

        Ctrl-C loses the chunk in hand at most: the same call goes on from what is in samples.jsonl.
        """
        started = time.monotonic()
        records: Kept = {task.label: dict(self.kept.get(task.label, {})) for task, _, _ in self.tasks}
        writes = self.output is not None and self.ranks.rank == 0
        with closing(together(self.ranks, lambda: self._writer(records) if writes else _Nowhere())) as writer:

            def keep(label: str, found: Sequence[Record]) -> None:
                records[label].update((record.index, record) for record in found)
                together(self.ranks, lambda: writer.append(label, found))

            shown = progress if progress is not None and self.ranks.rank == 0 else Silent()
            runner.run(self.plans, self.model, self.protocol, self.ranks, shown, self.seed, keep)
            results = self._results(records, time.monotonic() - started)
            together(self.ranks, lambda: writer.rewrite(records))
        if self.output is not None:
            folder = self.output
            from_first(self.ranks, lambda: results.save(folder))
        return results

    def _writer(self, records: Kept) -> SampleWriter:
        """Begins samples.jsonl; what an earlier evaluation made of it would not belong to it any more."""
        assert self.output is not None
        writer = SampleWriter(self.output / "samples.jsonl", self.header, records)
        for name in ("results.json", "report.md", "bars.png", "radar.png"):
            (self.output / name).unlink(missing_ok=True)
        return writer

    def _results(self, records: Kept, seconds: float) -> Results:
        found = []
        for task, kind, rows in self.tasks:
            in_order = [record for _, record in sorted(records[task.label].items())]
            offer = getattr(kind, "summarize", None)
            found.append(
                summarize(
                    task,
                    in_order,
                    rows=len(rows),
                    data_sha256=self.bundle.sha256(task),
                    details={} if offer is None else offer(task, in_order),
                    partial=self.selection.is_partial(task, len(rows)),
                )
            )
        notes = {"seconds": round(seconds, 1), "seed": self.seed}
        if self.judge is not None:
            notes |= {"judge": self.judge.id, "self_judged": self.judge.id == self.model.name}
        return Results(
            model=self.header["model"],
            protocol=self.protocol,
            suite=self.selection.name,
            tasks=tuple(found),
            averages=self.selection.averages(found, self.protocol),
            missing=tuple(self.selection.missing),
            limit=self.limit,
            bundle=str(self.bundle.folder),
            versions=self.header["versions"],
            notes=notes,
            records={label: [by_index[i] for i in sorted(by_index)] for label, by_index in records.items()},
        )


class _Nowhere:
    """The writer of those who write nothing."""

    def append(self, label: str, records: Sequence[Record]) -> None: ...
    def rewrite(self, records: Kept) -> None: ...
    def close(self) -> None: ...


def prepare(
    model: LanguageModel,
    tasks: str | Sequence[Task],
    bundle: str | Path | Bundle,
    *,
    protocol: ProtocolName | None = None,
    limit: int | None = None,
    output: str | Path | None = None,
    resume: bool = True,
    ranks: Ranks | None = None,
    allow_code_execution: bool = False,
    judge: Any = None,
    allow_self_judge: bool = False,
    seed: int = 0,
) -> Evaluation:
    """Everything of `evaluate` that can be refused, and nothing that costs. Collective; arguments as there."""
    ranks = OneProcess() if ranks is None else ranks
    protocol = own_protocol(tasks) if protocol is None else protocol
    if protocol not in get_args(ProtocolName):
        raise EvaluationError(f"protocol is {protocol!r}; choose {', '.join(get_args(ProtocolName))}")
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit must be at least 1, got {limit}; leave it out for all rows")
    data = bundle if isinstance(bundle, Bundle) else Bundle(bundle)
    try:
        selection = select(tasks, data)
    except EvaluationError:
        if isinstance(tasks, str):  # a judge or a permission is wanted whatever data there are: say so first
            named = [(task, runner.load_type(task)) for task in builtin_tasks(tasks)]
            runner.refuse(named, model, allow_code_execution, judge, allow_self_judge)
        raise
    typed = [(task, runner.load_type(task)) for task in selection.tasks]
    runner.refuse(typed, model, allow_code_execution, judge, allow_self_judge)
    typed = [(runner.with_judge(task, kind, judge), kind) for task, kind in typed]
    loaded = together(ranks, lambda: [(task, kind, data.rows(task)) for task, kind in typed])
    folder = None if output is None else Path(output)
    header = _header(model, loaded, data, protocol, limit, judge, seed, ranks)
    kept: Kept = {}
    if folder is not None and resume:
        kept = from_first(ranks, lambda: _resume(folder / "samples.jsonl", header))
    todo = [
        (task, kind, rows, [i for i in _asked(len(rows), limit, protocol) if i not in kept.get(task.label, {})])
        for task, kind, rows in loaded
    ]
    plans = runner.plan(todo, model, protocol, ranks)
    return Evaluation(model, selection, loaded, data, protocol, limit, folder, ranks, judge, seed, plans, kept, header)


_resume = resume


def _asked(n: int, limit: int | None, protocol: ProtocolName) -> list[int]:
    """Row numbers of the items that a limit leaves, ascending."""
    return sorted((core_order(n) if protocol == "core" else range(n))[:limit])


def builtin_tasks(names: str) -> list[Task]:
    """The built-in tasks among names and suites with commas between, with their data or without."""
    wanted = {name.strip().partition("/")[0] for name in names.split(",")}
    wanted |= {task for suite in wanted & CHAT_SUITES.keys() for task in CHAT_SUITES[suite]}
    return [entry.task for name, entry in builtin().items() if name in wanted]


def _header(
    model: LanguageModel,
    tasks: Sequence[tuple[Task, TaskType, Sequence[Row]]],
    bundle: Bundle,
    protocol: ProtocolName,
    limit: int | None,
    judge: Any,
    seed: int,
    ranks: Ranks,
) -> dict[str, Any]:
    """The first line of samples.jsonl; what must be equal for an evaluation to go on. Collective."""
    described = {
        "name": model.name,
        "backend": type(model).__name__,
        "tokenizer_hash": model.tokenizer_hash,
        "max_length": model.max_length,
        "dtype": None if (dtype := getattr(model, "dtype", None)) is None else str(dtype).removeprefix("torch."),
        "supports": sorted(model.supports),
    }
    return {
        "format": FORMAT,
        "model": described,
        "protocol": protocol,
        "limit": limit,
        "seed": seed,
        "judge": None if judge is None else judge.id,
        "versions": versions(),
        "probe": ranks.gather(together(ranks, lambda: runner.probe(model)))[0],
        "tasks": {
            task.label: fingerprint({"settings": settings_of(task), "data": bundle.sha256(task)})
            for task, _, _ in tasks
        },
    }


def versions() -> dict[str, str]:
    """Of this package and of what it computes with, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in ("gpt-eval", "numpy", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""From names to tasks: suites, built-in benchmarks, and those of a bundle's index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from gpt_eval.aggregate import Rule, Score, aggregate
from gpt_eval.data.bundle import Bundle
from gpt_eval.errors import EvaluationError
from gpt_eval.suites import chatcore
from gpt_eval.suites.core import core
from gpt_eval.suites.gauntlet import NEWEST, gauntlet, versions
from gpt_eval.suites.tables import builtin
from gpt_eval.task import ProtocolName, Task

CHAT_SUITES = ("chatcore", "chatcore5", "chatcore6", "ifeval", "judged")
"""In `gpt_eval.suites.chatcore`: its `suite(name, bundle)` returns (tasks, rule)."""


@dataclass(frozen=True)
class Selection:
    """What is to be run, and what is made of it."""

    name: str
    tasks: tuple[Task, ...]
    missing: tuple[str, ...]
    """Labels of the suite's tasks whose data the bundle has not."""
    rule: Rule

    def is_partial(self, task: Task, rows: int) -> bool:
        """Whether a file of so many rows is not the published one; False where that is not known."""
        return published_rows(task) not in (0, rows)

    def averages(self, scores: Sequence[Score], protocol: ProtocolName) -> dict[str, Any]:
        """{name: score, coverage, label, ...} as JSON values; empty for a list of tasks.

        CORE by other conventions than its own is not CORE: the label then says whose they are.
        """
        other = f", protocol {protocol}" if self.rule.protocol not in ("", protocol) else ""
        found = {name: average.as_json() for name, average in aggregate(self.rule, scores).items()}
        return {
            name: {**values, "label": values["label"] + other, "baselines": self.rule.source}
            for name, values in found.items()
        }


def suites() -> list[str]:
    """The names of all suites."""
    return ["gauntlet", *versions(), "core", *chatcore.SUITES]


def own_protocol(what: str | Sequence[Task]) -> ProtocolName:
    """Whose conventions names promise: "core" where CORE is among them, else "foundry"."""
    names = [name.strip() for name in what.split(",")] if isinstance(what, str) else []
    return "core" if "core" in names else "foundry"


def published_rows(task: Task) -> int:
    """Rows of the published file of a built-in task; 0 for any other."""
    sizes = {entry.task.file: entry.rows or 0 for entry in builtin().values()}
    by_name = builtin().get(task.name)
    return sizes.get(task.file) or (by_name.rows or 0 if by_name is not None else 0)


def select(what: str | Sequence[Task], bundle: Bundle) -> Selection:
    """A suite by its name, tasks and suites by names with commas between, or tasks themselves.

    Settings of single names are those of the bundle's index, else of the newest gauntlet ("name/5-shot" asks for other
    shots); those of a suite are the published ones. A suite runs with what data there is and names what is missing; a
    task that is asked for by name must be there. Raises EvaluationError for unknown names (with the nearest),
    for a suite without any data, for nothing to do.
    """
    if not isinstance(what, str):
        return _selection("tasks", list(what), (), Rule())
    names = [name.strip() for name in what.split(",") if name.strip()]
    tasks: list[Task] = []
    missing: list[str] = []
    rules: list[Rule] = []
    for name in names:
        if name in suites():
            offered, rule = _suite(name, bundle)
            rules.append(rule)
            found = [located(task, bundle) for task in offered]
            tasks += [task for task in found if task is not None]
            missing += [task.label for task, there in zip(offered, found, strict=True) if there is None]
        else:
            tasks.append(_single(name, bundle))
    if len(rules) > 1:
        raise EvaluationError(f"{what!r} names {len(rules)} suites; run one at a time, each has its own settings")
    if not tasks:
        raise EvaluationError(
            f"{what!r}: no data of its {len(missing)} tasks in {bundle.folder}; fetch them with "
            "`apps/evaluate fetch TASK --bundle DIR`"
            if missing
            else f"no task in {what!r}; name suites ({', '.join(suites())}) or tasks"
        )
    return _selection(what if len(names) > 1 else names[0], tasks, missing, rules[0] if rules else Rule())


def _selection(name: str, tasks: list[Task], missing: Sequence[str], rule: Rule) -> Selection:
    if not tasks:
        raise EvaluationError("no tasks given; name a suite or tasks")
    labels = [task.label for task in tasks]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise EvaluationError(f"{', '.join(twice)}: asked for twice; give tasks names of their own")
    return Selection(name, tuple(tasks), tuple(missing), rule)


def located(task: Task, bundle: Bundle) -> Task | None:
    """The task with the file that the bundle has for it: its own, or that of the index's task of the same name."""
    if bundle.has(task.file):
        return task
    twins = [entry.task.name for entry in builtin().values() if entry.task.file == task.file]  # hellaswag_zeroshot
    files = [bundle.tasks[name].file for name in (task.name, *twins) if name in bundle.tasks]
    return next((replace(task, file=file) for file in files if bundle.has(file)), None)


def _suite(name: str, bundle: Bundle) -> tuple[list[Task], Rule]:
    if name == "core":
        return core(bundle)
    if name in chatcore.SUITES:
        return chatcore.suite(name, bundle)
    return gauntlet(NEWEST if name == "gauntlet" else name)


def _single(name: str, bundle: Bundle) -> Task:
    """One task: from the index first, then the built-in ones."""
    bare, shots = _shots(name)
    known = {
        **{entry.task.name: entry.task for entry in builtin().values()},
        **bundle.tasks,
    }
    if bare not in known:
        near = get_close_matches(bare, [*suites(), *known], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else f"; suites are {', '.join(suites())}"
        raise EvaluationError(f"unknown task or suite {bare!r}{hint}")
    task = known[bare] if shots is None else replace(known[bare], num_fewshot=shots)
    found = located(task, bundle)
    if found is None and bare in bundle.tasks:
        raise EvaluationError(
            f"{bare}: the index names {task.file} for it, and {bundle.folder} has no such file; mend the entry's "
            "`file` or put it there"
        )
    if found is None:
        raise EvaluationError(
            f"{bare}: no {task.file} in {bundle.folder}; fetch it with `apps/evaluate fetch {bare} --bundle "
            f"{bundle.folder}`, or give it an entry in the index"
        )
    return found


def _shots(name: str) -> tuple[str, int | None]:
    """("arc_easy", 5) of "arc_easy/5-shot"."""
    bare, slash, rest = name.partition("/")
    if not slash:
        return bare, None
    count = rest.removesuffix("-shot")
    if not count.isdigit():
        raise EvaluationError(f"{name!r}: expected NAME or NAME/K-shot")
    return bare, int(count)

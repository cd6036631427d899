"""Word problems (GSM8K, SVAMP) from local files, for anything that continues text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from gpt_dag.evaluation.intervals import Rate
from gpt_dag.json_lines import json_lines

NUMBER = re.compile(r"-?[$€£]?-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+")
TOLERANCE = Decimal("1e-6")
FIELDS = {"gsm8k": ("question", "answer"), "svamp": ("Body", "Question", "Answer")}


@dataclass(frozen=True)
class MathScore:
    """Of one task. A problem that raises counts as wrong and as an error: the others still count."""

    exact: Rate
    """Equal numbers."""
    close: Rate
    """Within one part in a million."""
    errors: int


@dataclass(frozen=True)
class Skipped:
    """A task that was not run, and why."""

    reason: str


def last_number(text: str) -> Decimal | None:
    """The last number after "####", or in all of the text: `The price is $1,250.50.` -> 1250.50; None: no number."""
    found = NUMBER.findall(text.rpartition("####")[2])
    return Decimal(re.sub(r"[$€£,]", "", found[-1])) if found else None


def math_problems(task: str, path: Path | str | None, limit: int | None = None) -> list[tuple[str, Decimal]] | Skipped:
    """Prompts and answers of `task` (gsm8k or svamp) from a jsonl file; Skipped where no file is given.

    Raises ValueError that names the line, OSError where the file that was given is not there.
    """
    if task not in FIELDS:
        raise ValueError(f"math tasks are {', '.join(FIELDS)}, got {task!r}")
    if path is None:
        return Skipped(f"no file was given for {task}")
    if limit == 0:
        return Skipped("0 examples were asked for")
    problems = []
    for number, row in json_lines(path, limit):
        try:
            *question, answer = (str(row[field]) for field in FIELDS[task])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: expected {', '.join(FIELDS[task])}; {error!r}") from error
        wanted = last_number(answer)
        if wanted is None:
            raise ValueError(f"{path}, line {number}: no number in the answer {answer!r}")
        problems.append((" ".join(part.strip() for part in question) + "\nAnswer:", wanted))
    return problems


def score_math(continue_text: Callable[[str], str], problems: list[tuple[str, Decimal]]) -> MathScore:
    """continue_text: a prompt to its greedy continuation."""
    exact = close = errors = 0
    for prompt, wanted in problems:
        try:
            got = last_number(continue_text(prompt))
        except (ValueError, RuntimeError):  # one problem that is too long is no reason to lose the others
            errors += 1
            continue
        exact += got == wanted
        close += got is not None and abs(got - wanted) <= TOLERANCE * max(abs(wanted), abs(got))
    n = len(problems)
    return MathScore(Rate(exact, n), Rate(close, n), errors)

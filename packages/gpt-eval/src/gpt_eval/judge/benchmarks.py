"""The three judged benchmarks: what is asked, how an answer is put to the judge, and on which scale it counts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_eval.judge import prompts
from gpt_eval.judge.judges import Judge
from gpt_eval.judge.verdicts import Verdict, ask, letter, rating
from gpt_eval.task import Row

MT_CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
MT_TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
WIN = {"A": 1.0, "B": 0.0, "C": 0.5}
SWAPPED = {"A": "B", "B": "A", "C": "C"}


@dataclass(frozen=True)
class Judged:
    """One row, judged."""

    value: float | None
    """On the benchmark's scale; None where a verdict could not be read."""
    verdicts: tuple[Verdict, ...]
    parts: Mapping[str, float]
    """Values of the parts that could be read: turns, skills, orders."""


@dataclass(frozen=True)
class JudgedBenchmark:
    """How one of them works."""

    check: Callable[[Row], str | None]
    turns: Callable[[Row], Sequence[str]]
    """What the user says; the model answers each in turn."""
    temperature: Callable[[Row], float]
    judge: Callable[[Judge, Row, Sequence[str]], Judged]
    top: float
    """Of the scale: `Judged.value / top` is the row's share."""
    lowest: float
    max_new_tokens: int = 1024


def mt_bench(judge: Judge, row: Row, answers: Sequence[str]) -> Judged:
    """Each turn 1-10, the second in the light of the first; the row's value is the mean of the two."""
    references = list(row.get("reference") or [])
    verdicts = []
    for turn in range(len(answers)):
        reference = references[turn] if turn < len(references) else None
        messages = prompts.rate_messages(row["turns"][: turn + 1], answers[: turn + 1], reference)
        verdicts.append(ask(judge, messages, rating(1, 10)))
    parts = {f"turn_{i}": float(each.value) for i, each in enumerate(verdicts, 1) if each.value is not None}
    whole = len(parts) == len(verdicts)
    return Judged(sum(parts.values()) / len(parts) if whole else None, tuple(verdicts), parts)


def alpaca(judge: Judge, row: Row, answers: Sequence[str]) -> Judged:
    """1 for the candidate, 0 for the stored output, 0.5 for a tie; asked in both orders, which disagreeing is a tie."""
    mine, theirs = answers[0], row["output"]
    first = ask(judge, prompts.compare_messages(row["instruction"], mine, theirs), letter)
    second = ask(judge, prompts.compare_messages(row["instruction"], theirs, mine), letter)
    lengths = {"length": float(len(mine)), "baseline_length": float(len(theirs))}
    if first.value is None or second.value is None:
        return Judged(None, (first, second), lengths)
    agreed = first.value == SWAPPED[second.value]
    lengths["consistent"] = float(agreed)
    return Judged(WIN[first.value] if agreed else 0.5, (first, second), lengths)


def flask(judge: Judge, row: Row, answers: Sequence[str]) -> Judged:
    """Each of the row's skills 1-5; the row's value is their mean."""
    reference = row.get("reference") or ""
    skills = [skill_name(skill) for skill in row["skills"]]
    verdicts = [
        ask(judge, prompts.skill_messages(row["instruction"], answers[0], reference, skill), rating(1, 5))
        for skill in skills
    ]
    pairs = zip(skills, verdicts, strict=True)
    parts = {skill: float(verdict.value) for skill, verdict in pairs if verdict.value is not None}
    whole = len(parts) == len(skills)
    return Judged(sum(parts.values()) / len(parts) if whole else None, tuple(verdicts), parts)


def skill_name(text: str) -> str:
    """One of FLASK's skills, however it is capitalised or hyphenated."""
    return " ".join(text.lower().replace("-", " ").replace("_", " ").split())


def check_mt_bench(row: Row) -> str | None:
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        return f"turns must be texts, at least one, got {turns!r}"
    if row.get("category") not in MT_CATEGORIES:
        return f"category must be one of {', '.join(MT_CATEGORIES)}, got {row.get('category')!r}"
    references = row.get("reference", [])
    if not isinstance(references, list) or not all(isinstance(each, str) for each in references):
        return f"reference must be a list of texts, one per turn or none, got {references!r}"
    return None


def check_alpaca(row: Row) -> str | None:
    return _texts(row, "instruction", "output")


def check_flask(row: Row) -> str | None:
    skills = row.get("skills")
    if not isinstance(skills, list) or not skills:
        return f"skills must be a list with at least one, got {skills!r}"
    unknown = [skill for skill in skills if skill_name(str(skill)) not in prompts.SKILLS]
    if unknown:
        return f"unknown skills {unknown}, expected {', '.join(prompts.SKILLS)}"
    return _texts(row, "instruction")


def _texts(row: Row, *keys: str) -> str | None:
    for key in keys:
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"{key} must be text that is not blank, got {row.get(key)!r}"
    return None


def one_turn(row: Row) -> Sequence[str]:
    return (row["instruction"],)


def greedy(row: Row) -> float:
    return 0.0


BENCHMARKS: Mapping[str, JudgedBenchmark] = {
    "mt_bench": JudgedBenchmark(
        check_mt_bench,
        lambda row: row["turns"],
        lambda row: MT_TEMPERATURES.get(row["category"], 0.0),
        mt_bench,
        top=10.0,
        lowest=1.0,
    ),
    "alpaca_local": JudgedBenchmark(check_alpaca, one_turn, greedy, alpaca, top=1.0, lowest=0.0, max_new_tokens=2048),
    "flask": JudgedBenchmark(check_flask, one_turn, greedy, flask, top=5.0, lowest=1.0),
}


def detail(judged: Judged) -> dict[str, Any]:
    """For samples.jsonl: every reply as it came."""
    return {
        "value": judged.value,
        "parts": dict(judged.parts),
        "verdicts": [verdict.as_dict() for verdict in judged.verdicts],
    }

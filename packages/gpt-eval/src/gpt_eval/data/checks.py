"""What can be wrong with the fields of a row, in words; every check returns None for a good one."""

from collections.abc import Mapping
from typing import Any

from gpt_eval.task import Row, Task

_NAMES: Mapping[type, str] = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}


def check_fields(row: Row, fields: Mapping[str, type], task: Task) -> str | None:
    """Whether all fields are there with their types; with `category`, where the task has categories."""
    if task.has_categories:
        fields = {**fields, "category": str}
    for name, expected in fields.items():
        if name not in row:
            return f"no field {name!r}; got {', '.join(map(repr, row)) or 'none'}, expected {', '.join(fields)}"
        value = row[name]
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is int):
            return f"{name} is {_shown(value)}, expected {_NAMES[expected]}"
        if isinstance(value, str) and (problem := text_problem(value)):
            return f"{name} has {problem}"
    return None


def check_text(row: Row, name: str) -> str | None:
    """Whether a string has more than whitespace."""
    return None if row[name].strip() else f"{name} is empty"


def check_choices(row: Row, name: str) -> str | None:
    """At least two strings, none empty."""
    if len(row[name]) < 2:
        return f"{name} has {len(row[name])} entries, expected at least 2"
    return check_strings(row, name)


def check_strings(row: Row, name: str) -> str | None:
    """A list of strings, none empty."""
    for place, value in enumerate(row[name]):
        if not isinstance(value, str):
            return f"{name}[{place}] is {_shown(value)}, expected a string"
        if not value.strip():
            return f"{name}[{place}] is empty"
        if problem := text_problem(value):
            return f"{name}[{place}] has {problem}"
    return None


def check_gold(row: Row, name: str) -> str | None:
    """Whether gold is the number of an entry."""
    return None if 0 <= row["gold"] < len(row[name]) else f"gold is {row['gold']}, expected 0..{len(row[name]) - 1}"


def text_problem(text: str) -> str | None:
    """Characters that no text of a benchmark has, the trace of a broken conversion."""
    if "\0" in text:
        return f"a NUL character at {text.index(chr(0))}"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "half of a surrogate pair, which is no character"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:37] + '...'} ({type(value).__name__})"

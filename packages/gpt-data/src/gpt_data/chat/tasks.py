"""Rows of known data sets as conversations. A row that is not as it should be is a ValueError."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .conversation import check_conversation

LETTERS = "ABCDEFGHIJ"
CALCULATION = re.compile(r"<<([^>]*)>>")
Row = Mapping[str, Any]
Made = dict[str, list[dict[str, Any]]]


def smoltalk(row: Row) -> Made:
    """HuggingFaceTB/smoltalk: `messages` as they are, if they take turns and the assistant says something."""
    messages = check_conversation(row)
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("the assistant says nothing in this row.")
    return {"messages": [{"role": message["role"], "content": message["content"]} for message in messages]}


def mmlu(row: Row, style: Literal["letter", "legacy"] = "letter") -> Made:
    """cais/mmlu: `question`, `choices`, `answer` (a number), `subject`; auxiliary_train has them under `train`.

    letter: every choice before its letter, and the answer is a bare letter, so that question and answer share the
    token; small models bind it better (nanochat). legacy: `A. choice` lines, and the answer `A : choice`.
    """
    row = row["train"] if "question" not in row and isinstance(row.get("train"), Mapping) else row
    question, choices, answer = _text(row, "question"), row.get("choices"), row.get("answer")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"this row needs 2 to {len(LETTERS)} choices, got {choices!r}.")
    if not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise ValueError(f"the answer of this row must be the number of one of {len(choices)} choices, got {answer!r}.")
    lettered = list(zip(LETTERS, choices, strict=False))
    if style == "letter":
        lines = "".join(f"- {choice}={letter}\n" for letter, choice in lettered)
        asked = f"Multiple Choice question: {question}\n{lines}\nRespond only with the letter of the correct answer."
        return _exchange(asked, LETTERS[answer])
    if style == "legacy":
        subject = f"Subject: {row['subject']}\n\n" if row.get("subject") else ""
        lines = "\n".join(f"{letter}. {choice}" for letter, choice in lettered)
        return _exchange(f"{subject}{question}\n\n{lines}", f"{LETTERS[answer]} : {choices[answer]}")
    raise ValueError(f"style is {style!r}, expected 'letter' or 'legacy'.")


def gsm8k(row: Row) -> Made:
    """openai/gsm8k: `question`, `answer`. Every `<<expression=result>>` in the answer becomes a use of the tool."""
    question, answer = _text(row, "question"), _text(row, "answer")
    parts: list[dict[str, str]] = []
    for number, piece in enumerate(CALCULATION.split(answer)):
        if number % 2:  # what stood between << and >>
            expression, equals, result = piece.rpartition("=")
            parts.append({"type": "python", "text": expression if equals else result})
            if equals:  # without a result there is nothing that the tool answered
                parts.append({"type": "output", "text": result})
        elif piece:
            parts.append({"type": "text", "text": piece})
    return _exchange(question, parts)


def _text(row: Row, key: str) -> str:
    if not isinstance(row.get(key), str) or not row[key].strip():
        raise ValueError(f"this row needs a text {key!r}, got {row.get(key)!r}.")
    return row[key]


def _exchange(asked: str, answered: str | list[dict[str, str]]) -> Made:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]}

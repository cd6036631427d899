"""Multiple choice in a conversation, as nanochat asks it: the letter after its choice, the answer a letter alone."""

from collections.abc import Sequence

from gpt_eval.task import Row

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def render_question(question: str, letters: Sequence[str], choices: Sequence[str]) -> str:
    """The user's turn. No space before a letter: the answer is the token "A", which " A" is not."""
    listed = "".join(f"- {choice}={letter}\n" for letter, choice in zip(letters, choices, strict=True))
    return f"Multiple Choice question: {question}\n{listed}\nRespond only with the letter of the correct answer."


def letters_of(row: Row) -> list[str]:
    """A row's own labels (ARC has rows with 1-4), else A, B, C, ..."""
    return list(row.get("letters") or LETTERS[: len(row["choices"])])

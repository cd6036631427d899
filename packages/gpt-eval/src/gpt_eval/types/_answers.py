"""Reading an answer out of generated text, and comparing it with the right ones."""

import re
import string
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans({character: " " for character in string.punctuation + "\u2018\u2019\u00b4`"})
STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
IGNORED = [re.compile(pattern, re.DOTALL) for pattern in (",", r"\$", ".*#### ", r"\.$")]
"""Deleted one after the other: of "5.," the comma, and then the dot, which is the last."""


def normalized(text: str) -> str:
    """Lower case, without punctuation, articles and further whitespace (the comparison of TriviaQA's evaluation)."""
    text = text.replace("_", " ").lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first occurrence of any of the strings."""
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def after_last(text: str, delimiter: str) -> str:
    """The text behind the last occurrence of a delimiter; all of it where there is none."""
    return text.rpartition(delimiter)[2] if delimiter else text


def strict_number(text: str) -> str | None:
    """The number behind the first "#### " (the strict match of lm-evaluation-harness's gsm8k)."""
    found = STRICT.search(text)
    return found.group(1) if found else None


def flexible_number(text: str) -> str | None:
    """The last thing that looks like a number (its flexible extract)."""
    found = FLEXIBLE.findall(text)
    return found[-1] if found else None


def same_number(answer: str | None, label: str) -> bool:
    """Whether two numbers are written alike but for commas, dollar signs, a final dot, what leads up to "#### "."""
    return answer is not None and _bare(answer) == _bare(label)


def _bare(number: str) -> str:
    for pattern in IGNORED:
        number = pattern.sub("", number)
    return number.lower()

"""The answer to a word problem, read from a text. GSM8K's own rule and the two of lm-evaluation-harness."""

import re

MARKED = re.compile(r"#### (-?[0-9.,]+)")
NUMBER_LIKE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = (re.compile(r","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))


def gsm8k_answer(text: str) -> str | None:
    """The number after the first "#### ", without thousands' commas; None where there is none."""
    found = MARKED.search(text)
    return found.group(1).replace(",", "") if found else None


def strict_match(text: str) -> str | None:
    """lm-evaluation-harness' strict-match: the first "#### NUMBER", as it stands."""
    found = MARKED.search(text)
    return found.group(1) if found else None


def last_number(text: str) -> str | None:
    """lm-evaluation-harness' flexible-extract: the last thing that looks like a number."""
    found = [wide or digits for wide, digits in NUMBER_LIKE.findall(text)]
    return found[-1].strip() if found else None


def harness_equal(answer: str | None, gold: str) -> bool:
    """Exact match after deleting commas, dollar signs, everything through "#### " and a final dot, in any case."""
    return answer is not None and _bare(answer) == _bare(gold)


def _bare(text: str) -> str:
    for pattern in IGNORED:
        text = pattern.sub("", text)
    return text.lower()

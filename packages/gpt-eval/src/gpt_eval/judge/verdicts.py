"""A judge's reply becomes a number or a letter, after a second try at most."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpt_eval.judge.judges import Judge, request, request_sha256
from gpt_eval.judge.prompts import AGAIN
from gpt_eval.model import Message

MAX_TOKENS = 1024


@dataclass(frozen=True)
class Verdict:
    """One question put to a judge."""

    value: Any
    """A rating or "A", "B", "C"; None where no reply could be read."""
    replies: tuple[str, ...]
    """As they came, one or two."""
    prompt_sha256: str
    """Of the first request."""

    def as_dict(self) -> dict[str, Any]:
        return {"value": self.value, "replies": list(self.replies), "prompt_sha256": self.prompt_sha256}


def ask(judge: Judge, messages: Sequence[Message], parse: Callable[[str], Any], seed: int = 0) -> Verdict:
    """Asks at temperature 0; once more in the same conversation where the reply has no verdict."""
    digest = request_sha256(request(judge.id, messages, 0.0, MAX_TOKENS, seed))
    first = judge.chat(messages, temperature=0.0, max_tokens=MAX_TOKENS, seed=seed)
    value = parse(first)
    if value is not None:
        return Verdict(value, (first,), digest)
    again = [*messages, {"role": "assistant", "content": first}, {"role": "user", "content": AGAIN}]
    second = judge.chat(again, temperature=0.0, max_tokens=MAX_TOKENS, seed=seed)
    return Verdict(parse(second), (first, second), digest)


def rating(low: int, high: int) -> Callable[[str], int | None]:
    """Reads the last [[number]] of a reply; None for no whole number in low..high there."""

    def parse(reply: str) -> int | None:
        found = re.findall(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]", reply)
        value = float(found[-1]) if found else None
        return int(value) if value is not None and value.is_integer() and low <= value <= high else None

    return parse


def letter(reply: str) -> str | None:
    """Reads the last [[A]], [[B]] or [[C]] of a reply."""
    found = re.findall(r"\[\[\s*([ABC])\s*\]\]", reply)
    return found[-1] if found else None

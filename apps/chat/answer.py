"""From the tokens of an answer to what a person reads: text, and uses of the calculator apart from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt_core.generate import Event, TextStream, Tool

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class Calculation:
    """A use of the calculator. result None: it had no answer."""

    expression: str
    result: str | None


@dataclass(frozen=True)
class Piece:
    """What an answer grew by."""

    sample: int = 0
    text: str = ""
    calculations: tuple[Calculation, ...] = ()
    tokens: int = 0
    """How many tokens this piece stands for; text may come later than its tokens, never earlier."""
    finish: Finish | None = None
    """On the last piece: stop, where the model or a stop text ended the answer; length, where a limit did."""
    detail: str = ""
    """With finish: stop_token, stop_text, length (max_tokens) or context (the model's context is full)."""


class AnswerText:
    """Follows the tokens of one sample.

    Text joined over all pieces is the answer: no half characters, nothing from a stop text on. What the model hands to
    the calculator and what that answers is no part of it.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], prompt: Sequence[int], stop: Sequence[str], tool: Tool | None
    ):
        self._decode, self._tool = decode, tool
        self._special = set() if tool is None else {tool.call_start, tool.call_end, tool.answer_start, tool.answer_end}
        self._text = TextStream(decode, prompt if tool is None else (), stop)  # a chat's answer begins anew
        self._state: Literal["text", "calling", "called", "answered"] = "text"
        self._expression: list[int] = []
        self._result: list[int] = []
        self.ids: list[int] = []
        self.text = ""
        self.detail = ""

    @property
    def done(self) -> bool:
        return bool(self.detail)

    def push(self, event: Event) -> Piece:
        """What an event adds. Nothing may come after a piece with `finish`."""
        assert not self.done, "this answer has ended"
        text, calculations = "", ()
        if event.token is not None:
            self.ids.append(event.token)
            text, calculations = self._take(event.token)
        detail = "stop_text" if self._text.stopped else event.reason or ""
        if detail:
            self.detail = detail
            self._result = []  # cut off: half a number is none
            calculations = (*calculations, *self._unfinished())
            text += "" if self._text.stopped else self._text.close()
        self.text += text
        finish: Finish | None = None if not detail else "stop" if detail.startswith("stop") else "length"
        return Piece(event.sample, text, calculations, int(event.token is not None), finish, detail)

    def _take(self, token: int) -> tuple[str, tuple[Calculation, ...]]:
        """Text and finished calculations that a token brings."""
        tool = self._tool
        if tool is None:
            return self._text.push(token), ()
        if token == tool.answer_start and self._state == "called":
            self._state = "answered"
            return "", ()
        done = self._unfinished() if self._state == "called" or token in (tool.call_start, tool.answer_end) else ()
        if token == tool.call_start:
            self._state = "calling"
        elif token == tool.call_end and self._state == "calling":
            self._state = "called"
        elif token not in self._special:
            return self._plain(token), done
        return "", done

    def _plain(self, token: int) -> str:
        """A token of text, of an expression or of a result."""
        if self._state == "text":
            return self._text.push(token)
        (self._expression if self._state == "calling" else self._result).append(token)
        return ""

    def _unfinished(self) -> tuple[Calculation, ...]:
        """The calculation that is open, if one is, now ended."""
        if self._state == "text":
            return ()
        result = self._decode(self._result) if self._result else None
        made = Calculation(self._decode(self._expression), result)
        self._state, self._expression, self._result = "text", [], []
        return (made,)


def merged(pieces: Sequence[Piece]) -> Piece:
    """Several pieces of one sample as one."""
    last = pieces[-1]
    calculations = tuple(made for piece in pieces for made in piece.calculations)
    tokens, text = sum(piece.tokens for piece in pieces), "".join(piece.text for piece in pieces)
    return Piece(last.sample, text, calculations, tokens, last.finish, last.detail)

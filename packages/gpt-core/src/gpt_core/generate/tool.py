"""A tool that a model calls by writing tokens: it opens a call, writes an expression, closes it; the answer is put in.

... <call_start> 12 / 60 <call_end>  <answer_start> 0.2 <answer_end> ...
    written by the model             put in, instead of what the model would have said
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

MOST_TOKENS = 256
"""Of one expression; what is longer is no call."""


@dataclass(frozen=True)
class Tool:
    """The tokens around a call and its answer, and what answers."""

    call_start: int
    call_end: int
    answer_start: int
    answer_end: int
    run: Callable[[Sequence[int]], Sequence[int] | None]
    """Tokens of the expression to tokens of the answer; None: no answer, and the model goes on by itself."""


class ToolCalls:
    """Follows one row. `push` every token of it in order, those that were put in too."""

    def __init__(self, tool: Tool):
        self._tool = tool
        self._expression: list[int] | None = None  # None: no call is open

    def push(self, token: int) -> list[int]:
        """Tokens that must come next, if this one closed a call that has an answer; else none."""
        tool, expression = self._tool, self._expression
        if token == tool.call_start:
            self._expression = []
        elif token == tool.call_end and expression is not None:
            self._expression = None
            answer = tool.run(expression) if len(expression) <= MOST_TOKENS else None
            if answer is not None:
                return [tool.answer_start, *answer, tool.answer_end]
        elif expression is not None:
            expression.append(token)
        return []

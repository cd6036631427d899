"""Text to expression: a shunting yard that knows at every place what may stand there.

    expression = operand (operator operand)*        operators: + - * /, usual precedence, grouping to the left
    operand    = number | "(" expression ")"        number: -12.050%, all but the integer digits optional

A minus sign belongs to a number; the negative of a parenthesis is written `0 - (...)`.
"""

import re

from gpt_dag.expression import Expression, Operator, Step
from gpt_dag.number import Number

OPERAND = re.compile(
    r"(?P<open>\()|(?P<sign>-?)(?P<int>[0-9]+)(?:\.(?P<frac>[0-9]+))?(?P<percent>%?)",
)
OPERATOR = re.compile(r"(?P<close>\))|(?P<symbol>[-+*/])")
SPACE = re.compile(r"\s*")


LONGEST = 1000
"""Digits on either side of the point: Python refuses to read many more, and nobody writes them."""

SHOWN = 200
"""Characters of a text that an error repeats: all, or from where it goes wrong."""


class ParseError(ValueError):
    """Text that is not an expression. `.problem`: what is wrong; `.position`: the first character that does not fit."""

    def __init__(self, problem: str, text: str, position: int):
        shown = (
            repr(text) if len(text) <= SHOWN else f"{text[position : position + SHOWN]!r}... ({len(text)} characters)"
        )
        super().__init__(f"{problem} at position {position} of {shown}")
        self.problem = problem
        self.position = position


def parse(text: str) -> Expression:
    """Reads one expression in symbols. Raises ParseError.

    Steps come out in evaluation order (postfix), so equal structure gives equal expressions whatever the spaces and
    redundant parentheses.
    """
    yard = Yard()
    position = _skip_space(text, 0)
    operand_next = True
    while position < len(text) or operand_next:
        match = (OPERAND if operand_next else OPERATOR).match(text, position)
        if match is None:
            wanted = "a number or '('" if operand_next else "an operator or ')'"
            found = repr(text[position]) if position < len(text) else "the end"
            raise ParseError(f"expected {wanted}, found {found}", text, position)
        if match.lastgroup == "open":
            yard.open(position)
        elif match.lastgroup == "close":
            if not yard.close():
                raise ParseError("this ')' closes nothing", text, position)
        elif match.lastgroup == "symbol":
            yard.operator(Operator(match["symbol"]), position)
            operand_next = True
        else:
            yard.number(_number(match, text))
            operand_next = False
        position = _skip_space(text, match.end())
    unclosed = yard.finish()
    if unclosed is not None:
        raise ParseError("this '(' is never closed", text, unclosed)
    return yard.expression()


class Yard:
    """Operands wait on one stack; operators and open parentheses, with their positions, on the other."""

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        self.steps: list[Step] = []
        self.operands: list[int] = []  # number i as i, step s as ~s: the count of numbers is not known yet
        self.waiting: list[tuple[Operator | None, int]] = []  # None: an open parenthesis

    def number(self, number: Number) -> None:
        self.operands.append(len(self.numbers))
        self.numbers.append(number)

    def open(self, position: int) -> None:
        self.waiting.append((None, position))

    def operator(self, operator: Operator, position: int) -> None:
        self._reduce(operator.precedence)
        self.waiting.append((operator, position))

    def close(self) -> bool:
        self._reduce(0)
        return bool(self.waiting) and self.waiting.pop() is not None

    def finish(self) -> int | None:
        """Applies what still waits; returns the position of a parenthesis that was left open."""
        self._reduce(0)
        return self.waiting[-1][1] if self.waiting else None

    def expression(self) -> Expression:
        count = len(self.numbers)
        node = lambda operand: operand if operand >= 0 else count + ~operand
        steps = (Step(step.operator, node(step.left), node(step.right), step.position) for step in self.steps)
        return Expression(tuple(self.numbers), tuple(steps))

    def _reduce(self, precedence: int) -> None:
        """Turns waiting operators that bind at least as tightly into steps, back to an open parenthesis."""
        while self.waiting:
            operator, position = self.waiting[-1]
            if operator is None or operator.precedence < precedence:
                return
            self.waiting.pop()
            right, left = self.operands.pop(), self.operands.pop()
            self.operands.append(~len(self.steps))
            self.steps.append(Step(operator, left, right, position))


def _number(match: re.Match[str], text: str) -> Number:
    frac = match["frac"] or ""
    if max(len(match["int"]), len(frac)) > LONGEST:
        raise ParseError(f"a number of more than {LONGEST} digits", text, match.start())
    return Number(int(match["int"]), int(frac or 0), len(frac), match["sign"] == "-", match["percent"] == "%")


def _skip_space(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    assert match is not None  # \s* always matches
    return match.end()

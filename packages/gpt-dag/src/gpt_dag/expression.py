"""An arithmetic expression as a flat DAG, its exact values and its shortest symbolic text.

Nodes are numbered: first the N numbers in reading order, then the result of step s as node N + s. A step points to
two earlier nodes, the last node is the result. This is the plan that the predictor learns to write.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from operator import add, mul, sub, truediv

from gpt_dag.number import Number


class Operator(Enum):
    """Members stand in the order of their class ids."""

    ADD = "+"
    SUBTRACT = "-"
    MULTIPLY = "*"
    DIVIDE = "/"

    @property
    def precedence(self) -> int:
        return 2 if self in (Operator.MULTIPLY, Operator.DIVIDE) else 1

    @property
    def function(self) -> Callable[[Fraction, Fraction], Fraction]:
        return {"+": add, "-": sub, "*": mul, "/": truediv}[self.value]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on two earlier nodes."""

    operator: Operator
    left: int
    right: int

    position: int | None = field(default=None, compare=False)
    """Where the operator stands in the text that the step was read from; None if it was not read from text."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Numbers and the steps that combine them; a node may be used more than once."""

    numbers: tuple[Number, ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        unused = set(range(len(self.numbers) + len(self.steps)))
        for node, step in enumerate(self.steps, start=len(self.numbers)):
            if not (0 <= step.left < node and 0 <= step.right < node):
                raise ValueError(f"node {node} must use two of the nodes 0..{node - 1}; got {step}")
            unused -= {step.left, step.right}
        if len(unused) != 1:  # the result is the one node that no step uses
            raise ValueError(f"an expression has one result; the nodes that no step uses are {sorted(unused)}")

    def __str__(self) -> str:
        return render(self)


class DivisionByZero(ValueError):
    """A step divides by exactly 0. `.position`: of the `/` in the parsed text, or None."""

    def __init__(self, expression: Expression, step: Step):
        where = "" if step.position is None else f" at position {step.position}"
        divisor = _texts(expression)[step.right]
        super().__init__(f"division by zero{where}: the divisor {divisor} is 0 in {render(expression)}")
        self.position = step.position


def evaluate(expression: Expression) -> Fraction:
    """The exact value. Raises DivisionByZero."""
    return node_values(expression)[-1]


def node_values(expression: Expression) -> list[Fraction]:
    """The exact value of every node, in node order. Raises DivisionByZero."""
    values = [number.value for number in expression.numbers]
    for step in expression.steps:
        if step.operator is Operator.DIVIDE and values[step.right] == 0:
            raise DivisionByZero(expression, step)
        values.append(step.operator.function(values[step.left], values[step.right]))
    return values


def render(expression: Expression) -> str:
    """The expression in symbols, with the fewest parentheses that keep its structure."""
    return _texts(expression)[-1]


def _texts(expression: Expression) -> list[str]:
    """The text of every node, in node order."""
    texts = [str(number) for number in expression.numbers]
    precedences = [3] * len(texts)  # a number never needs parentheses
    for step in expression.steps:
        precedence = step.operator.precedence
        left, right = texts[step.left], texts[step.right]
        if precedences[step.left] < precedence:
            left = f"({left})"
        if precedences[step.right] <= precedence:  # operators group to the left
            right = f"({right})"
        texts.append(f"{left} {step.operator.value} {right}")
        precedences.append(precedence)
    return texts

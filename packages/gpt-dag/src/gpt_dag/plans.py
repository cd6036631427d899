"""Many expressions as one set of tensors: what the sampler makes, the predictor writes and the executor runs.

B expressions, N numbers at most, D steps at most (N - 1 where every number is used once; may be 0). Node i < N is a
number, node N + s the result of step s. `value = (-1)^negative * scaled / 10^decimals`, so no value ever is a float;
percent is folded in: 46.4% is 464 / 10^3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

import torch
from torch import Tensor

from gpt_dag.expression import DivisionByZero, Expression, Operator, Step, evaluate
from gpt_dag.number import Number

OPERATORS = tuple(Operator)
"""Operator of each class id."""
IDENTITY = len(OPERATORS)
"""Class of a step that is not used, in the seed's view of a plan."""
MAX_DIGITS = 18
"""A scaled number of so many digits still fits into int64."""


@dataclass(frozen=True)
class Plans:
    """B expressions. Numbers from `count` on are 0, steps that are not used have operator -1 and both operands at the
    result, so that copying an operand there leaves the result in the last node of every expression."""

    negative: Tensor
    """(B, N) bool."""
    scaled: Tensor
    """(B, N) int64, not negative."""
    decimals: Tensor
    """(B, N) int64: digits after the point, two more for a percentage."""
    count: Tensor
    """(B,) int64: how many numbers each expression has, at least 1."""
    operator: Tensor
    """(B, D) int64: class id in the order of `Operator`, in the order of evaluation; -1: not used."""
    left: Tensor
    """(B, D) int64: a node before this step's."""
    right: Tensor
    """(B, D) int64."""

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: slice | Tensor) -> Plans:
        """Some of the expressions: a slice, a mask (B,) or indices."""
        return Plans(*(getattr(self, field.name)[rows] for field in fields(self)))

    @classmethod
    def cat(cls, parts: Sequence[Plans]) -> Plans:
        """The expressions of all parts, which have equal N and equal D."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @property
    def steps(self) -> Tensor:
        """(B,) int64: how many steps each expression has."""
        return (self.operator >= 0).sum(1)

    @property
    def device(self) -> torch.device:
        return self.count.device

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Plans:
        moved = (getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self))
        return Plans(*moved)

    @classmethod
    def from_expressions(cls, expressions: Sequence[Expression]) -> Plans:
        """ValueError for a number of more than 18 digits, which does not fit into int64."""
        N = max((len(e.numbers) for e in expressions), default=1)
        D = max((len(e.steps) for e in expressions), default=0)
        D = max(D, N - 1)
        numbers = [[_scaled(n) for n in e.numbers] + [(0, 0, 0)] * (N - len(e.numbers)) for e in expressions]
        steps = [_steps(e, N, D) for e in expressions]
        number = torch.tensor(numbers, dtype=torch.int64).view(len(expressions), N, 3)
        step = torch.tensor(steps, dtype=torch.int64).view(len(expressions), D, 3)
        count = torch.tensor([len(e.numbers) for e in expressions], dtype=torch.int64)
        return cls(number[..., 0].bool(), number[..., 1], number[..., 2], count, *step.unbind(-1))

    def expressions(self) -> list[Expression]:
        """Percentages come back as decimals: 46.4% as 0.464, the same value."""
        N = self.negative.shape[1]
        columns = (self.negative, self.scaled, self.decimals, self.operator, self.left, self.right)
        rows = zip(self.count.tolist(), *(column.tolist() for column in columns), strict=True)
        return [_expression(N, *row) for row in rows]

    def fractions(self) -> list[Fraction | None]:
        """The exact value of each; None where it divides by zero."""
        return [_value(expression) for expression in self.expressions()]

    def values(self) -> Tensor:
        """(B, N) float64: the numbers, each the float nearest to its exact value while `scaled` is below 2^53."""
        magnitude = self.scaled.double() / powers_of_ten(self.decimals)
        return torch.where(self.negative, -magnitude, magnitude)

    def slots(self) -> tuple[Tensor, Tensor, Tensor]:
        """The seed's view: `initial_sgn` (B, N) in {-1, 0, 1}, `initial_log` (B, N) and `operation_probs` (B, D, 5),
        all float64.

        initial_log is ln|v|, 0 where the sign is 0. Operators stand in reading order, one-hot, and slots that are not
        used are padded as there: the number 1 and the class identity. The view says nothing about parentheses, so it
        holds an expression completely only where all nest to the right.
        """
        used = torch.arange(self.negative.shape[1], device=self.device) < self.count[:, None]
        zero = (self.scaled == 0) & used
        sign = torch.where(self.negative & used, -1.0, 1.0).double().masked_fill(zero, 0.0)
        log = self.values().abs().masked_fill(zero | ~used, 1.0).log()
        one_hot = torch.nn.functional.one_hot(self.reading_order().clamp(min=-1) % (IDENTITY + 1), IDENTITY + 1)
        return sign, log, one_hot.double()

    def node_room(self, numbers: Tensor) -> Tensor:
        """(B, N + D): what is known of the numbers (B, N), and room for the same of the results of the steps."""
        return torch.cat([numbers, numbers.new_zeros(self.operator.shape)], 1)

    def reading_order(self) -> Tensor:
        """(B, D) int64: operator classes in the order in which they are written; -1: not used.

        Of expressions that use their numbers once and in order, as all that are read from text do: the operator stands
        after the last number of its left operand. Steps that are not used write -1 after the last number of all.
        """
        B, N = self.negative.shape
        last = self.node_room(torch.arange(N, device=self.device).expand(B, N))  # last number of every node
        order = self.operator.new_full((B, self.operator.shape[1] + 1), -1)
        for step in range(self.operator.shape[1]):
            place = last.gather(1, self.left[:, step : step + 1])
            order.scatter_(1, place, self.operator[:, step : step + 1])
            last[:, N + step] = last.gather(1, self.right[:, step : step + 1])[:, 0]
        return order[:, :-1]


def powers_of_ten(exponent: Tensor) -> Tensor:
    """10^exponent as float64, exact for 0 to 22."""
    table = torch.tensor([10.0**e for e in range(23)], dtype=torch.float64, device=exponent.device)
    return table[exponent]


def _scaled(number: Number) -> tuple[int, int, int]:
    """negative, scaled, decimals."""
    scaled, decimals = number.int_part * 10**number.decimals + number.frac, number.decimals + 2 * number.percent
    if scaled >= 10**MAX_DIGITS or decimals > MAX_DIGITS + 2:
        raise ValueError(f"a plan holds numbers of at most {MAX_DIGITS} digits, got {str(number)[:40]}")
    return number.negative, scaled, decimals


def _steps(expression: Expression, N: int, D: int) -> list[tuple[int, int, int]]:
    shift = N - len(expression.numbers)  # of the nodes that are results
    node = lambda i: i + shift if i >= len(expression.numbers) else i
    steps = [(OPERATORS.index(s.operator), node(s.left), node(s.right)) for s in expression.steps]
    result = node(len(expression.numbers) + len(steps) - 1)
    return steps + [(-1, result, result)] * (D - len(steps))


def _expression(
    N: int,
    count: int,
    negative: list[bool],
    scaled: list[int],
    decimals: list[int],
    operator: list[int],
    left: list[int],
    right: list[int],
) -> Expression:
    numbers = (
        Number(*divmod(s, 10**d), decimals=d, negative=n)
        for n, s, d in zip(negative[:count], scaled, decimals, strict=False)
    )
    node = lambda i: i - N + count if i >= N else i
    steps = (Step(OPERATORS[o], node(a), node(b)) for o, a, b in zip(operator, left, right, strict=True) if o >= 0)
    return Expression(tuple(numbers), tuple(steps))


def _value(expression: Expression) -> Fraction | None:
    try:
        return evaluate(expression)
    except DivisionByZero:
        return None

"""A reading as a tree for people: every node with its value, each number with the words that it was read from."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from gpt_dag.decimal_text import decimal_text
from gpt_dag.predictor.reading import Reading

DIGITS = 12
"""Significant digits of a value that does not end."""


def draw_tree(reading: Reading) -> str:
    """The result on top, operands below it. Of a Reading with values."""
    rows = list(_rows(reading))
    width = max(len(tree) for tree, _, _ in rows)
    values = max(len(value) for _, value, _ in rows)
    return "\n".join(f"{tree.ljust(width)}  {value.ljust(values)}  {source}".rstrip() for tree, value, source in rows)


def _rows(reading: Reading) -> Iterator[tuple[str, str, str]]:
    """Tree, value and source of every node, the result first; without recursion: a chain is as deep as long."""
    assert reading.expression is not None
    numbers, steps = reading.expression.numbers, reading.expression.steps
    due = [(len(reading.values) - 1, "", "")]  # node, what its own line begins with, what those below it begin with
    while due:
        node, first, rest = due.pop()
        value = short(reading.values[node])
        if node < len(numbers):
            start, end = reading.spans[node]
            yield first + "number", value, f'"{reading.text[start:end]}"'
            continue
        step = steps[node - len(numbers)]
        yield first + step.operator.value, value, ""
        due.append((step.right, rest + "└── ", rest + "    "))
        due.append((step.left, rest + "├── ", rest + "│   "))


def decimals_of(value: Fraction) -> int | None:
    """How many digits after the point the value has; None: it does not end."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    return max(twos, fives) if rest == 1 else None


def short(value: Fraction) -> str:
    """The whole decimal where it ends soon, else `≈` and its first significant digits."""
    ends = decimals_of(value)
    if ends is not None and ends <= DIGITS:
        return decimal_text(value, ends)
    return f"≈ {rounded(value)}"


def rounded(value: Fraction) -> str:
    """The first `DIGITS` significant digits, correctly rounded (half to even)."""
    if not value:
        return "0"
    size = _magnitude(abs(value))  # 10^size <= |value| < 10^(size + 1)
    if -5 <= size < DIGITS:
        return decimal_text(value, DIGITS - 1 - size)
    return f"{decimal_text(value / Fraction(10) ** size, DIGITS - 1)}e{size}"


def _magnitude(value: Fraction) -> int:
    size = len(str(value.numerator)) - len(str(value.denominator))
    return size if value >= Fraction(10) ** size else size - 1


def exact(value: Fraction) -> str:
    """The fraction, and the decimal: whole where it ends, else rounded."""
    if value.denominator == 1:
        return str(value.numerator)
    ends = decimals_of(value)
    decimal = f"≈ {rounded(value)}" if ends is None else f"= {decimal_text(value, ends)}"
    return f"{value.numerator}/{value.denominator} {decimal}"

"""What an answer that understands nothing of the structure would score: shown beside every score.

They are given the numbers and operators for nothing, by the deterministic reader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from gpt_dag.english import parse_english
from gpt_dag.evaluation.items import Item
from gpt_dag.expression import Expression, Operator
from gpt_dag.parse import ParseError


def baselines(items: Sequence[Item]) -> dict[str, list[Fraction | None]]:
    """Answers by name of the baseline."""
    read = [_parsed(item.text) for item in items]
    common = Counter(item.answer for item in items).most_common(1)[0][0]
    rules: dict[str, Callable[[Expression], Fraction | None]] = {
        "first number": lambda e: e.numbers[0].value,
        "left to right": left_to_right,
    }
    answers: dict[str, list[Fraction | None]] = {"commonest answer": [common] * len(items)}
    for name, rule in rules.items():
        answers[name] = [None if e is None else rule(e) for e in read]
    return answers


def left_to_right(expression: Expression) -> Fraction | None:
    """As a pocket calculator without precedence or parentheses reads it; None where that divides by zero."""
    value = expression.numbers[0].value
    for number, operator in zip(expression.numbers[1:], reading_order(expression), strict=True):
        if operator is Operator.DIVIDE and number.value == 0:
            return None
        value = operator.function(value, number.value)
    return value


def reading_order(expression: Expression) -> list[Operator]:
    """The operators as they are written: each stands after its left operand."""
    last = list(range(len(expression.numbers)))
    order: dict[int, Operator] = {}
    for step in expression.steps:
        order[last[step.left]] = step.operator
        last.append(last[step.right])
    return [order[i] for i in sorted(order)]


def _parsed(text: str) -> Expression | None:
    try:
        return parse_english(text)
    except ParseError:
        return None

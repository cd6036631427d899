"""Whether two expressions say the same, and where they part."""

from __future__ import annotations

from gpt_dag.expression import Expression, Step
from gpt_dag.predictor.reading import Reading


def disagreement(reading: Reading, wanted: Expression) -> tuple[str, int] | None:
    """What a network's reading and the expression that the text is differ in, and at which character; None: nothing."""
    got = reading.expression
    assert got is not None
    for i, (mine, other) in enumerate(zip(got.numbers, wanted.numbers, strict=False)):
        if mine.value != other.value:
            return f"the network read the number {mine} where the text says {other}", reading.spans[i][0]
    if len(got.numbers) != len(wanted.numbers):
        at = reading.spans[min(len(got.numbers), len(wanted.numbers)) - 1][0]
        return f"the network read {len(got.numbers)} numbers, the text has {len(wanted.numbers)}", at
    mine, others = _spans(got), _spans(wanted)
    for span, step in sorted(others.items()):
        if span not in mine or mine[span].operator is not step.operator:
            return "the network read another operation or other parentheses here", step.position or 0
    return None


def _spans(expression: Expression) -> dict[tuple[int, int, int], Step]:
    """(first number, last number of the left operand, last number) -> step; all spans together are the tree."""
    reach = [(i, i) for i in range(len(expression.numbers))]
    steps = {}
    for step in expression.steps:
        (first, middle), (_, last) = reach[step.left], reach[step.right]
        steps[first, middle, last] = step
        reach.append((first, last))
    return steps

"""Numbers, values and rendering, against Python's own Fraction and operator precedence."""

import random
import re
from fractions import Fraction

import pytest

from gpt_dag import (
    DivisionByZero,
    Expression,
    Number,
    Operator,
    Step,
    evaluate,
    node_values,
    parse,
    render,
)

ADD, SUBTRACT, MULTIPLY, DIVIDE = Operator


def random_expression(rng: random.Random, num_steps: int) -> Expression:
    """A random tree in postfix step order, as `parse` writes it."""
    numbers, steps = [], []

    def grow(size: int) -> int:
        if size == 0:
            decimals = rng.randrange(4)
            frac = rng.randrange(10**decimals)
            negative, percent = rng.random() < 0.3, rng.random() < 0.1
            numbers.append(Number(rng.choice([0, 7, 1234]), frac, decimals, negative, percent))
            return len(numbers) - 1
        left_size = rng.randrange(size)
        operator = rng.choice(list(Operator))
        left, right = grow(left_size), grow(size - 1 - left_size)
        steps.append((operator, left, right))
        return ~(len(steps) - 1)

    grow(num_steps)
    node = lambda i: i if i >= 0 else len(numbers) + ~i
    return Expression(tuple(numbers), tuple(Step(op, node(a), node(b)) for op, a, b in steps))


def python_value(text: str) -> Fraction:
    """Python's reading of the same text, every literal made a Fraction first."""
    literal = r"(?<![0-9.])(\d+(?:\.\d+)?)(%?)"
    code = re.sub(literal, lambda m: f"Fraction({m[1]!r})" if not m[2] else f"(Fraction({m[1]!r})/100)", text)
    return eval(code, {"Fraction": Fraction})


@pytest.mark.parametrize("num_steps", [0, 1, 2, 5, 12])
def test_value_equals_pythons_and_text_reads_back_as_the_same_plan(num_steps):
    rng = random.Random(num_steps)
    agreed = 0
    for _ in range(60):
        expression = random_expression(rng, num_steps)
        text = render(expression)
        assert parse(text) == expression, text
        try:
            value = evaluate(expression)
        except DivisionByZero:
            with pytest.raises(ZeroDivisionError):
                python_value(text)
            continue
        assert value == python_value(text), text
        agreed += 1
    assert agreed > 30


def test_no_parenthesis_is_superfluous():
    rng = random.Random(1)
    removed = 0
    for _ in range(20):
        expression = random_expression(rng, 6)
        text = render(expression)
        for opening in re.finditer(r"\(", text):
            depth = 0
            for end in range(opening.start(), len(text)):
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                if depth == 0:
                    break
            without = text[: opening.start()] + text[opening.start() + 1 : end] + text[end + 1 :]
            assert parse(without) != expression, (text, without)
            removed += 1
    assert removed > 10


@pytest.mark.parametrize(
    ("number", "text", "value"),
    [
        (Number(0, 5, 2), "0.05", Fraction(1, 20)),  # a leading zero after the point
        (Number(2, 50, 2), "2.50", Fraction(5, 2)),  # a trailing one stays written
        (Number(63712, 0), "63712", Fraction(63712)),
        (Number(6, 3712, 4, negative=True), "-6.3712", Fraction(-63712, 10000)),
        (Number(12, 50, 3, negative=True, percent=True), "-12.050%", Fraction(-1205, 10000)),
    ],
)
def test_numbers_are_written_and_valued_digit_by_digit(number, text, value):
    assert str(number) == text
    assert number.value == value
    assert parse(text) == Expression((number,))


def test_digits_that_floats_get_wrong_stay_exact():
    assert evaluate(parse("0.1 + 0.2")) == Fraction(3, 10)
    assert evaluate(parse("0.0002 - 0.0001")) == Fraction(1, 10_000)
    assert evaluate(parse("5.22 - 3.213 / 2.32")) == Fraction(522, 100) - Fraction(3213, 2320)


def test_a_node_may_be_used_twice():
    square_of_sum = Expression((Number(1), Number(2)), (Step(ADD, 0, 1), Step(MULTIPLY, 2, 2)))
    assert node_values(square_of_sum) == [1, 2, 3, 9]
    assert render(square_of_sum) == "(1 + 2) * (1 + 2)"


def test_division_by_an_exact_zero_names_divisor_and_position():
    with pytest.raises(DivisionByZero, match=r"position 2: the divisor 0\.3 - 0\.1 \* 3 is 0") as caught:
        evaluate(parse("1 / (0.3 - 0.1 * 3)"))
    assert caught.value.position == 2
    by_hand = Expression((Number(1), Number(0)), (Step(DIVIDE, 0, 1),))
    with pytest.raises(DivisionByZero, match="division by zero: the divisor 0"):
        evaluate(by_hand)


@pytest.mark.parametrize(
    ("numbers", "steps", "message"),
    [
        ((), (), "one result"),
        ((Number(1), Number(2)), (), r"no step uses are \[0, 1\]"),
        ((Number(1), Number(2), Number(3)), (Step(ADD, 0, 1),), r"\[2, 3\]"),
        ((Number(1), Number(2)), (Step(ADD, 0, 2),), r"nodes 0\.\.1"),
        ((Number(1), Number(2)), (Step(SUBTRACT, -1, 0),), r"nodes 0\.\.1"),
    ],
)
def test_a_plan_with_dead_or_missing_nodes_is_refused(numbers, steps, message):
    with pytest.raises(ValueError, match=message):
        Expression(numbers, steps)


@pytest.mark.parametrize(("int_part", "frac", "decimals"), [(-1, 0, 0), (1, 10, 1), (1, -1, 1), (1, 1, 0), (1, 0, -1)])
def test_digits_that_do_not_fit_are_refused(int_part, frac, decimals):
    with pytest.raises(ValueError, match="got"):
        Number(int_part, frac, decimals)

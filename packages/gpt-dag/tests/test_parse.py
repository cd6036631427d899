"""What `parse` accepts, and where it says that text goes wrong."""

import random

import pytest

from gpt_dag import Number, Operator, ParseError, Step, evaluate, parse, render


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1-2-3", "1 - 2 - 3"),  # to the left
        ("1-(2-3)", "1 - (2 - 3)"),
        ("(1-2)-3", "1 - 2 - 3"),
        ("1+2*3", "1 + 2 * 3"),
        ("((1+2))*3", "(1 + 2) * 3"),
        ("8/4/2", "8 / 4 / 2"),
        ("8/(4*2)", "8 / (4 * 2)"),
        (" 1 --2\t+\n-3 ", "1 - -2 + -3"),
        ("007.10%", "7.10%"),
    ],
)
def test_spaces_and_redundant_parentheses_leave_no_trace(text, canonical):
    assert render(parse(text)) == canonical
    assert parse(text) == parse(canonical)


def test_steps_point_at_earlier_nodes_in_evaluation_order():
    expression = parse("(1 + 2) * (3 - 4)")
    assert expression.numbers == tuple(Number(n) for n in (1, 2, 3, 4))
    assert expression.steps == (
        Step(Operator.ADD, 0, 1),
        Step(Operator.SUBTRACT, 2, 3),
        Step(Operator.MULTIPLY, 4, 5),
    )
    assert [step.position for step in expression.steps] == [3, 13, 8]


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "expected a number"),
        ("   ", 3, "found the end"),
        ("1 +", 3, "expected a number"),
        ("3 + * 2", 4, "expected a number"),
        ("1 2", 2, "expected an operator"),
        ("5.", 1, "expected an operator"),
        (".5", 0, "expected a number"),
        ("1 + 2)", 5, "closes nothing"),
        ("(1 + (2 * 3)", 0, "never closed"),
        ("()", 1, "expected a number"),
        ("-(1)", 0, "expected a number"),
        ("1 + x", 4, "expected a number"),
        ("(1)%", 3, "expected an operator"),
        ("1e5", 1, "expected an operator"),
        ("٣ + 1", 0, "expected a number"),  # digits of another script
    ],
)
def test_malformed_text_is_reported_where_it_goes_wrong(text, position, problem):
    with pytest.raises(ParseError, match=problem) as caught:
        parse(text)
    assert caught.value.position == position


def test_any_text_is_an_expression_or_a_parse_error():
    rng = random.Random(0)
    parsed = 0
    for _ in range(1000):
        text = "".join(rng.choices("0123.%+-*/() ", k=rng.randint(1, 9)))
        try:
            expression = parse(text)
        except ParseError as error:
            assert 0 <= error.position <= len(text)
            continue
        assert parse(render(expression)) == expression
        parsed += 1
    assert parsed > 40


def test_length_and_depth_are_bounded_by_memory_only():
    assert evaluate(parse("1" + "+1" * 1000)) == 1001
    assert evaluate(parse("(" * 1000 + "1" + ")" * 1000)) == 1
    assert evaluate(parse("1-(" * 1000 + "1" + ")" * 1000)) == 1

"""The calculator computes arithmetic exactly, and nothing else at all."""

import threading
import warnings
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_core.generate import calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12/60", "0.2"),
        ("0.1+0.2", "0.3"),
        ("6/2", "3"),
        ("1,200 * 3", "3600"),
        ("1,234,567+1", "1234568"),
        ("-(3 - 5) * +2", "4"),
        ("10/3", "3.3333333333333335"),
        (".5 + 5.", "5.5"),
        ("1/10000000", "0.0000001"),
        ("0-0", "0"),
        ("'strawberry'.count('r')", "3"),
        ('"a,b,c".count(",")', "2"),
        (" 2 + 2 ", "4"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "2**10",
        "2//3",
        "7%2",
        "1/0",
        "1/(2-2)",
        "().__class__",
        "__import__('os').system('true')",
        "'a'.count('a').__class__",
        "'a'.upper()",
        "'a'.count('a', 1)",
        "'\\x41'.count('A')",
        "'a' * 99",
        "a + 1",
        "1 if 1 else 2",
        "1,2",
        "(1)(2)",
        "1_000",
        "0x10",
        "1e9",
        "True",
        "007",
        "1 +",
        "((1)",
        "(" * 300 + "1" + ")" * 90,
        "-" * 399 + "1",
        "9" * 399,
        "9" * 20 + "-" + "9" * 20 + "+" + "9" * 20,
        "1/" + "9" * 30,
        "1+" * 300 + "1",
        "١+١",
        "1\n+1",
        "[1]",
        "lambda: 1",
    ],
)
def test_everything_else_has_no_value(expression):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert calculate(expression) in (None, "-1" if expression.startswith("-" * 9) else None)
    assert not said, "what a model writes is no concern of Python's compiler"


@given(st.text(alphabet="0123456789+-*/.() ,'\"count", max_size=60))
def test_any_text_is_a_value_or_none(expression):
    value = calculate(expression)
    assert value is None or Fraction(value) is not None


numbers = st.integers(0, 10**6).map(str) | st.decimals(0, 1000, places=3).map(str)
trees = st.recursive(
    numbers,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(trees)
def test_it_agrees_with_exact_arithmetic(expression):
    import re

    exact = re.sub(r"\d+(\.\d+)?", lambda m: f"Fraction('{m[0]}')", expression)
    try:
        expected = eval(exact)  # the oracle; the expression is our own
    except ZeroDivisionError:
        assert calculate(expression) is None
        return
    value = calculate(expression)
    if abs(expected) >= 10**15 or 0 < abs(expected) * 10**15 < 1:
        assert value is None
    else:
        assert value is not None
        assert abs(Fraction(value) - expected) <= abs(expected) * Fraction(1, 10**15)


def test_it_works_in_any_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(calculate("12/60")))
    thread.start()
    thread.join()
    assert found == ["0.2"]

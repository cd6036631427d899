"""A calculator for what a model writes: arithmetic and counting letters, read as a syntax tree, nothing evaluated.

Expressions come from a model, and through it from strangers. Only what is listed here has a meaning; sizes are
bounded before anything is computed, so no time limit is needed, and it runs in any thread.
"""

import ast
import operator
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

LONGEST = 400
"""Characters of an expression."""
LARGEST = 10**15
"""No result is larger than this, or smaller than one over it but for 0: no model has learned to read so many digits."""
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
ARITHMETIC = re.compile(r"[0-9+\-*/.() ]+", re.ASCII)
COUNT = re.compile(r"""\s*(['"])[^'"\\\n]*\1\s*\.count\(\s*(['"])[^'"\\\n]*\2\s*\)\s*""")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def calculate(expression: str) -> str | None:
    """The value as text, or None for anything that is not plain arithmetic or `'text'.count('letters')`.

    + − * / and signs over decimal numbers, computed exactly: 0.1+0.2 is 0.3. A result without a finite decimal is
    rounded as Python prints a float; a whole number has no ".0". Commas between thousands are ignored. Division by
    zero, powers, names, calls and attributes are None.

    >>> calculate("12/60"), calculate("1,200 * 3"), calculate("'strawberry'.count('r')"), calculate("2**10")
    ('0.2', '3600', '3', None)
    """
    if len(expression) > LONGEST:
        return None
    if COUNT.fullmatch(expression):
        return _count(expression)
    text = THOUSANDS.sub("", expression).strip()
    if not ARITHMETIC.fullmatch(text):  # before parsing, which warns about text that is nearly Python
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body, text)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return _written(value)


def _value(node: ast.expr, text: str) -> Fraction:
    """Exact value of a tree. ValueError for a node that is not on the list."""
    match node:
        case ast.Constant(value=int() | float()):
            literal = ast.get_source_segment(text, node)
            assert literal is not None
            return Fraction(literal)  # the digits themselves, not the nearest float
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            value = _value(operand, text)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left, text), _value(right, text))
        case _:
            raise ValueError(f"{type(node).__name__} is not arithmetic")


def _count(expression: str) -> str | None:
    match ast.parse(expression.strip(), mode="eval").body:
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(text)), attr="count"),
            args=[ast.Constant(value=str(letters))],
            keywords=[],
        ):
            return str(text.count(letters))
        case _:
            return None


def _written(value: Fraction) -> str | None:
    if abs(value) >= LARGEST or 0 < abs(value) * LARGEST < 1:
        return None
    if value.denominator == 1:
        return str(value.numerator)
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

"""The tool of nanochat's chat models: arithmetic, and how often a letter is in a word. No `eval`."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
ARITHMETIC_CHARACTERS = frozenset("0123456789*+-/.() ")
MAX_CHARACTERS = 1000
MAX_BITS = 4096
"""Of an integer: products of a long expression stay small, so no time limit is needed."""


def calculate(expression: str) -> int | float | None:
    """The value of an expression; None for anything but + - * / // ( ) of numbers, or "text".count("letter") alone.

    Commas are dropped first (1,000 is 1000). Numbers are written in digits with at most a dot: 1e5, 0x10 and 1_0 have
    no value. Neither have powers, names and other calls, as in nanochat, a division by zero, or what is no finite
    number.
    """
    expression = expression.replace(",", "").strip()
    if not expression or len(expression) > MAX_CHARACTERS:
        return None
    counts = not ARITHMETIC_CHARACTERS.issuperset(expression)
    if counts and (".count(" not in expression or "\\" in expression):
        return None
    try:
        tree = ast.parse(expression, mode="eval").body
        value = _value(tree) if isinstance(tree, ast.Call) or not counts else None
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None
    return value if value is not None and math.isfinite(value) else None


def _value(node: ast.AST) -> Any:
    """Raises ValueError for a kind of expression that is not allowed."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, str):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return _number(ARITHMETIC[type(node.op)](_number(_value(node.left)), _number(_value(node.right))))
    if isinstance(node, ast.UnaryOp) and type(node.op) in ARITHMETIC:
        return _number(ARITHMETIC[type(node.op)](_number(_value(node.operand))))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
        text, wanted = _value(node.func.value), [_value(argument) for argument in node.args]
        if node.func.attr == "count" and isinstance(text, str) and len(wanted) == 1 and isinstance(wanted[0], str):
            return text.count(wanted[0])
    raise ValueError(f"not allowed: {ast.dump(node)[:80]}")


def _number(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, int) and value.bit_length() > MAX_BITS):
        raise ValueError("not a number of a usual size")
    return value

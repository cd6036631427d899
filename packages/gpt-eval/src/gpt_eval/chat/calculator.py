"""The tool of nanochat's chat models: arithmetic, and how often a letter is in a word. No `eval`."""

import ast
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
MAX_CHARACTERS = 1000
MAX_BITS = 4096
"""Of an integer: products of a long expression stay small, so no time limit is needed."""


def calculate(expression: str) -> int | float | None:
    """The value of an expression; None for anything but + - * / // ( ) of numbers, or "text".count("letter").

    Commas are dropped first (1,000 is 1000). Powers, names and other calls have no value, as in nanochat, and neither
    has a division by zero.
    """
    expression = expression.replace(",", "").strip()
    if not expression or len(expression) > MAX_CHARACTERS:
        return None
    try:
        value = _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None
    return None if isinstance(value, str) else value


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

"""A differentiable DAG that does exact arithmetic inside a GPT; so far its exact, symbolic ground."""

from gpt_dag.expression import DivisionByZero, Expression, Operator, Step, evaluate, node_values, render
from gpt_dag.number import Number
from gpt_dag.parse import ParseError, parse

__all__ = [
    "DivisionByZero",
    "Expression",
    "Number",
    "Operator",
    "ParseError",
    "Step",
    "evaluate",
    "node_values",
    "parse",
    "render",
]

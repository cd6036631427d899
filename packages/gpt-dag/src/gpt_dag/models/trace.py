"""What a forward pass of the DAG leaves for the logger.

Dimensions: B batch, Q positions that see the DAG, T tokens, S steps, O operations, N nodes, D model width.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

OPERATIONS = ("add", "subtract", "multiply", "divide", "identity")
"""Names of the executor's classes, in the order of their ids."""


class Selection(NamedTuple):
    """What the controller chose and computed, still in its graph."""

    sign: Tensor
    """(B, Q, S) of the results."""
    log: Tensor
    """(B, Q, S) ln|v|; no meaning where sign is 0."""
    valid: Tensor
    """(B, Q, S) bool: steps that have a value."""
    op_probs: list[Tensor]
    """(B, Q, O) of every step."""
    op_logits: list[Tensor]
    """(B, Q, O) of every step."""
    operand_probs: tuple[list[Tensor], list[Tensor]]
    """Of the first and of the second operand, one (B, Q, T+s) per step."""
    token_sign: Tensor
    """(B, T) of the values read off the tokens."""
    token_log: Tensor
    """(B, T)"""


class PlanValues(NamedTuple):
    """What the predictor read and the executor made of it, for every span."""

    sign: Tensor
    """(B, Q, N) of all nodes of the expression that holds at a position: numbers, then results."""
    log: Tensor
    """(B, Q, N)"""
    valid: Tensor
    """(B, Q, N) bool"""


@dataclass(frozen=True)
class Trace:
    """The last forward pass, still in its graph."""

    hidden: Tensor
    """(B, Q, D) before mixing."""
    dag: Tensor
    """(B, Q, D) what the DAG says."""
    fused: Tensor
    """(B, Q, D) after mixing."""
    gate: Tensor
    """(B, Q, 1)"""
    nodes: Selection | PlanValues

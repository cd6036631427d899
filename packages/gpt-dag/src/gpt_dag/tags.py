"""What the predictor learns to say about every token, and which class stands for what.

Targets are one tensor (B, T, 6) int64; -1 means that the column has no target at that token, and is everywhere in
padding. Every column is decided by a few neighbouring tokens, so a model that sees a window learns all lengths.

| column | where | meaning |
|---|---|---|
| ROLE | every token | `Role`: end of a number (its percent included), end of an operator, parenthesis, or none |
| PLACE | every token | 0: none; 1 + i: the power 10^(max_digits - 1 - i) that the token's value is multiplied by |
| VALUE | tokens with a place | class in `VALUES` |
| NEGATIVE | number ends | 1: a sign stands before the number |
| PERCENT | number ends | 1: the number is a percentage |
| OPERATOR | operator ends | class id of `Operator` |

A number is the sum of value * 10^place over the tokens since the end of the number before: an exact scaled integer.
"""

from __future__ import annotations

from enum import IntEnum

ROLE, PLACE, VALUE, NEGATIVE, PERCENT, OPERATOR = range(6)
"""Columns."""
COLUMNS = ("role", "place", "value", "negative", "percent", "operator")
IGNORED = -1

VALUES = (*range(20), *range(20, 100, 10))
"""Class -> what the token says; 0..19 are themselves."""


class Role(IntEnum):
    """Each is said by the last token of what it is the role of: `by` of "divided by", `parenthesis` of "open ..."."""

    NONE = 0
    NUMBER_END = 1
    OPERATOR_END = 2
    OPEN = 3
    CLOSE = 4


def place_classes(max_digits: int, max_decimals: int) -> int:
    """How many classes PLACE has."""
    return 1 + max_digits + max_decimals


def place_class(exponent: int, max_digits: int) -> int:
    """The class of 10^exponent; exponent below 0: after the point."""
    return max_digits - exponent


def place_exponent(place: int, max_digits: int) -> int:
    """The inverse of `place_class`; places from 1 on."""
    return max_digits - place


def class_counts(max_digits: int, max_decimals: int) -> tuple[int, ...]:
    """How many classes every column has."""
    return len(Role), place_classes(max_digits, max_decimals), len(VALUES), 2, 2, 4

"""What is drawn: the distribution of expressions and of how they are written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

MOST_DIGITS = 6
"""Before the point, and after it."""
MOST_OPS = 20
SHAPES = ("random", "right")


class Style(NamedTuple):
    """Probabilities of how the parts of an expression are written; what is left is for the last way."""

    digits: float
    """A number as 12.5 ..."""
    cardinal: float
    """... as "twelve point five"; else as "one two point five"."""
    symbol: float
    """An operator as + - * / ..."""
    simple: float
    """... as plus, minus, times, divided by; else as one of all its words."""
    brackets: float
    """A parenthesis as ( or ); else as "open parenthesis"."""
    percent: float = 1.0
    """How often numbers are percentages, relative to `Law.p_percent`."""


STYLES = {
    "symbols": Style(1, 0, 1, 0, 1),
    "cardinal": Style(0, 1, 0, 1, 0),
    "spelled": Style(0, 0, 0, 1, 0),
    "verbose": Style(0, 1, 0, 0, 0),
    "mixed": Style(0.5, 0.35, 0.5, 0.1, 0.75),
    "percent": Style(0, 0.8, 0, 1, 0, percent=4.0),
}


@dataclass(frozen=True)
class Law:
    """A distribution over expressions and their texts.

    Numbers: the count of digits before the point is uniform from 1 to `max_digits`, that after it from 0 to
    `max_decimals`; all digits are free, so 0.05 occurs, and 6 % of the numbers with decimals are below 1.

    shape="random": the number of operations is uniform from `min_ops` to `max_ops`, operators are uniform, trees are
    those of random priorities. shape="right" is nanoGPT-DAG's law: `max_ops` slots, each uniform over the four
    operators and identity, of which the first ends the expression, so P(k) = 0.2 * 0.8^k below max_ops; everything
    nests to the right; 0 to max_digits digits before the point (none: 0), and the first decimal is not 0.

    An expression that divides by exactly 0, or has a value above 1e12 or other than 0 and below 1e-9, is drawn anew
    with the same number of operations and style; so is the rare one of which float64 cannot tell. Where a width is
    asked for that nothing of a number of operations fits into, another number is drawn.
    """

    min_ops: int = 0
    max_ops: int = 6
    max_digits: int = 4
    max_decimals: int = 4
    styles: tuple[str, ...] = tuple(STYLES)
    shape: str = "random"
    p_negative: float = 0.25
    p_percent: float = 0.1
    p_zero: float = 0.02
    p_redundant: float = 0.02
    """Of a pair of parentheses that nothing needs, around every number and every result."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_ops <= self.max_ops <= MOST_OPS:
            raise ValueError(
                f"expected 0 <= min_ops <= max_ops <= {MOST_OPS}, got min_ops {self.min_ops}, max_ops {self.max_ops}."
            )
        if not 1 <= self.max_digits <= MOST_DIGITS or not 0 <= self.max_decimals <= MOST_DIGITS:
            raise ValueError(
                f"max_digits must be 1 to {MOST_DIGITS} and max_decimals 0 to {MOST_DIGITS}, got {self.max_digits} and "
                f"{self.max_decimals}."
            )
        if self.shape not in SHAPES:
            raise ValueError(f"shape is {self.shape!r}, expected one of {', '.join(SHAPES)}.")
        if self.shape == "right" and self.min_ops:
            raise ValueError(f"shape 'right' draws 0 to max_ops operations by its own law; min_ops is {self.min_ops}.")
        unknown = [style for style in self.styles if style not in STYLES]
        if unknown or not self.styles:
            raise ValueError(f"styles are {list(self.styles)}, expected some of {', '.join(STYLES)}.")
        for field in fields(self):
            if field.name.startswith("p_") and not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(f"{field.name} is {getattr(self, field.name)}, expected a probability.")

    @property
    def max_numbers(self) -> int:
        return self.max_ops + 1

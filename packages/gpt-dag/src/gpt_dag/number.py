"""A written number as scaled integers: it never passes through a float, so text and value always agree."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Number:
    """The literal `-12.050%` is Number(12, 50, decimals=3, negative=True, percent=True)."""

    int_part: int
    """Digits before the point."""

    frac: int = 0
    """Digits after the point, read as one integer below 10**decimals."""

    decimals: int = 0
    """How many digits are written after the point; `2.50` keeps its zero."""

    negative: bool = False
    percent: bool = False

    def __post_init__(self) -> None:
        if self.int_part < 0 or self.decimals < 0:
            raise ValueError(f"int_part and decimals cannot be below 0; got {self.int_part}, {self.decimals}")
        if not 0 <= self.frac < 10**self.decimals:
            raise ValueError(f"frac must have at most {self.decimals} digits, as decimals says; got {self.frac}")

    @property
    def value(self) -> Fraction:
        scale = 10**self.decimals
        magnitude = Fraction(self.int_part * scale + self.frac, scale * (100 if self.percent else 1))
        return -magnitude if self.negative else magnitude

    def __str__(self) -> str:
        point = f".{self.frac:0{self.decimals}d}" if self.decimals else ""
        return f"{'-' if self.negative else ''}{self.int_part}{point}{'%' if self.percent else ''}"

"""How an answer is written: one text per value, so that equal answers are equal texts."""

from fractions import Fraction


def decimal_text(value: Fraction, decimals: int) -> str:
    """The value rounded to so many decimals (half to even, exactly), without zeros that say nothing: `-0.25`, `7`.

    >>> decimal_text(Fraction(2, 3), 4)
    '0.6667'
    """
    if decimals < 0:
        raise ValueError(f"decimals cannot be below 0, got {decimals}")
    scaled = round(value * 10**decimals)
    digits = str(abs(scaled)).rjust(decimals + 1, "0")
    whole, part = digits[: len(digits) - decimals], digits[len(digits) - decimals :].rstrip("0")
    return f"{'-' if scaled < 0 else ''}{whole}{'.' if part else ''}{part}"

"""One expression to text in any style: plain Python, the readable twin of the stream's layout."""

from __future__ import annotations

from random import Random

from gpt_dag.expression import Expression, Operator
from gpt_dag.number import Number
from gpt_dag.stream.law import STYLES, Style
from gpt_dag.tokens import SMALL, TENS

WORDS = {
    Operator.ADD: ("plus", "added to"),
    Operator.SUBTRACT: ("minus", "subtract", "less"),
    Operator.MULTIPLY: ("times", "multiplied by"),
    Operator.DIVIDE: ("divided by", "over", "divide by"),
}
"""The simple way first."""
CARDINALS = 10**6
"""Integers from here on have no words in the vocabulary but their digits."""


def write(expression: Expression, style: str = "symbols", rng: Random | None = None) -> str:
    """The text of an expression, with the fewest parentheses that keep its structure.

    style: one of `STYLES`; rng: what chooses where a style leaves a choice, None for the same choices every time.
    `parse_english` reads the same expression again. ValueError for an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}, expected one of {', '.join(STYLES)}.")
    rng, shares = rng or Random(0), STYLES[style]
    texts = [_number(number, shares, rng) for number in expression.numbers]
    binding = [3] * len(texts)  # of every node's text: a number never needs parentheses
    for step in expression.steps:
        strength = step.operator.precedence
        left, right = texts[step.left], texts[step.right]
        if binding[step.left] < strength:
            left = _enclosed(left, shares, rng)
        if binding[step.right] <= strength:  # operators group to the left
            right = _enclosed(right, shares, rng)
        texts.append(f"{left} {_operator(step.operator, shares, rng)} {right}")
        binding.append(strength)
    return texts[-1]


def cardinal(number: int, with_and: bool = True, comma: bool = True) -> str:
    """An integer from 0 to 999,999 in words: "one thousand, six hundred and four"."""
    if not 0 <= number < CARDINALS:
        raise ValueError(f"cardinals are written from 0 to {CARDINALS - 1}, got {number}")
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest, with_and)
    head = _below_thousand(thousands, with_and) + " thousand"
    if not rest:
        return head
    if rest < 100:
        return f"{head} {'and ' if with_and else ''}{_below_thousand(rest, with_and)}"
    return f"{head}{',' if comma else ''} {_below_thousand(rest, with_and)}"


def spelled(digits: str) -> str:
    """Every digit as a word."""
    return " ".join(SMALL[int(digit)] for digit in digits)


def _below_thousand(number: int, with_and: bool) -> str:
    hundreds, small = divmod(number, 100)
    tens, units = divmod(small, 10)
    low = SMALL[small] if small < 20 else TENS[tens - 2] + (f"-{SMALL[units]}" if units else "")
    if not hundreds:
        return low
    return f"{SMALL[hundreds]} hundred" + (f"{' and' if with_and else ''} {low}" if small else "")


def _number(number: Number, shares: Style, rng: Random) -> str:
    way = rng.random()
    if way < shares.digits:
        return str(number)
    whole = str(number.int_part)
    if way < shares.digits + shares.cardinal and number.int_part < CARDINALS:
        words = cardinal(number.int_part, with_and=rng.random() < 0.75, comma=rng.random() < 0.75)
    else:
        words = spelled(whole)
    sign = rng.choice(("negative ", "minus ")) if number.negative else ""
    point = f" point {spelled(f'{number.frac:0{number.decimals}d}')}" if number.decimals else ""
    return f"{sign}{words}{point}{' percent' if number.percent else ''}"


def _operator(operator: Operator, shares: Style, rng: Random) -> str:
    way = rng.random()
    if way < shares.symbol:
        return operator.value
    return WORDS[operator][0] if way < shares.symbol + shares.simple else rng.choice(WORDS[operator])


def _enclosed(text: str, shares: Style, rng: Random) -> str:
    if rng.random() < shares.brackets:
        return f"( {text} )"
    return f"open parenthesis {text} close parenthesis"

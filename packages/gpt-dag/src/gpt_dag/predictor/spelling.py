"""Tags against the words they were said of: a word that a plan leaves out, or takes for another, is noticed.

Without a parse: every check looks at a token, its neighbours and what came since the last end of something. It holds of
every correct reading, so it turns wrong answers into none and never the other way round.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_dag.tags import NEGATIVE, PERCENT, PLACE, ROLE, VALUE, VALUES, Role
from gpt_dag.tokens import DIGITS, ID, SMALL, TENS, VOCABULARY

PHRASES = (("added", "to"), ("multiplied", "by"), ("divided", "by"), ("divide", "by"))
PHRASES = (*PHRASES, ("open", "parenthesis"), ("close", "parenthesis"))
"""The only places of these words."""
SIGNS, POINTS, PERCENTS = ("-", "minus", "negative"), (".", "point"), ("%", "percent")
SCALES = ("hundred", "thousand")
OPERATORS = ("+", "*", "/", "plus", "times", "over", "subtract", "less", "to", "by")
ALLOWED: dict[Role, tuple[str, ...]] = {
    Role.NONE: (*DIGITS, *SMALL, *TENS, *SIGNS, *POINTS, *SCALES, "and", *(first for first, _ in PHRASES)),
    Role.NUMBER_END: (*DIGITS, *SMALL, *TENS, *SCALES, *PERCENTS),
    Role.OPERATOR_END: (*OPERATORS, "-", "minus"),
    Role.OPEN: ("(", "parenthesis"),
    Role.CLOSE: (")", "parenthesis"),
}
"""What words each role may be said of; "=" and the end of a text have none."""


def misread(ids: Tensor, tags: Tensor, exponent: Tensor) -> Tensor:
    """(B, T) bool: whose tags cannot be meant of the word tokenizer's ids (B, T); exponent: of ten, of every digit."""
    allowed, values, neighbours = _tables(str(ids.device))
    role, place, value = (tags[..., column] for column in (ROLE, PLACE, VALUE))
    token = torch.arange(ids.shape[1], device=ids.device)
    live = ids != ID["<|pad|>"]
    since = last_before(role > 0, token)  # tokens after it belong to one number, operator or parenthesis
    joined = since < token - 1  # the token before belongs to the same

    def among(words: tuple[str, ...]) -> Tensor:
        return live & torch.isin(ids, torch.tensor([ID[word] for word in words], device=ids.device))

    def had(mask: Tensor) -> Tensor:
        """Whether the mask holds earlier in the same number."""
        return last_before(mask, token) > since

    def before(column: Tensor, fill: int = 0, steps: int = 1) -> Tensor:
        return F.pad(column, (steps, 0), value=fill)[:, : ids.shape[1]]

    def after(column: Tensor, fill: int = 0) -> Tensor:
        return F.pad(column, (-1, 1), value=fill)

    digit = values[ids] >= 0
    end = role == Role.NUMBER_END
    sign, point, scale = among(SIGNS) & (role == Role.NONE), among(POINTS), among(SCALES)
    percent, linked, first = among(PERCENTS), among(("and",)), among(tuple(first for first, _ in PHRASES))
    said_before, exponent_before = joined & before(digit), before(exponent)
    far = since < token - 2  # so does the one before that
    run = far & before(digit, steps=2) & (before(exponent, steps=2) != exponent_before)  # "two three hundred"
    hundreds = said_before & ((exponent_before == 2) | (exponent_before == 5)) & ~run
    whole = said_before & (exponent_before == 3) & ~run
    of_hundreds = far & before(among(("hundred",))) & before(digit, steps=2) & (before(exponent, steps=2) == 5)

    wrong = ~allowed[ids, role.clamp(min=0)]
    wrong |= digit != (place > 0)
    wrong |= digit & (value != values[ids])
    wrong |= digit & ((exponent < 0) != had(point))
    wrong |= ~neighbours[before(ids), ids] | ~neighbours[ids, after(ids)]
    wrong |= joined & (first | ((role > Role.NUMBER_END) & ~before(first)))  # a number that never ends
    wrong |= (role == Role.OPEN) & among(("parenthesis",)) & (before(ids) != ID["open"])
    wrong |= (role == Role.CLOSE) & among(("parenthesis",)) & (before(ids) != ID["close"])
    wrong |= sign & (joined | ~after(digit))
    wrong |= point & (had(point) | ~had(digit) | ~after(digit) | (after(exponent) != -1))
    wrong |= among(("hundred",)) & ~hundreds
    wrong |= among(("thousand",)) & ~(whole | of_hundreds)
    wrong |= linked & ~(joined & before(scale) & after(digit))
    wrong |= end & (((tags[..., NEGATIVE] == 1) != had(sign)) | ((tags[..., PERCENT] == 1) != percent))
    gap = ~live & (live.flip(1).cumsum(1).flip(1) > 0)  # padding inside
    return (wrong & live) | gap


def last_before(mask: Tensor, token: Tensor) -> Tensor:
    """(B, T): the last token before each that the mask holds for; -1: none."""
    return F.pad(torch.where(mask, token, -1).cummax(1).values, (1, -1), value=-1)


@lru_cache(maxsize=8)
def _tables(device: str) -> tuple[Tensor, Tensor, Tensor]:
    """By id: the roles it may have (V, 5), the class of its value (V,), -1: none; and who may stand before whom."""
    allowed = torch.zeros(len(VOCABULARY), len(Role), dtype=torch.bool)
    for role, words in ALLOWED.items():
        allowed[[ID[word] for word in words], role] = True
    values = torch.full((len(VOCABULARY),), -1)
    values[[ID[digit] for digit in DIGITS]] = torch.arange(10)
    values[[ID[word] for word in (*SMALL, *TENS)]] = torch.arange(len(VALUES))
    neighbours = torch.ones(len(VOCABULARY), len(VOCABULARY), dtype=torch.bool)
    for first, second in PHRASES:
        neighbours[ID[first], :] = neighbours[:, ID[second]] = False
    for first, second in PHRASES:
        neighbours[ID[first], ID[second]] = True
    return allowed.to(device), values.to(device), neighbours.to(device)

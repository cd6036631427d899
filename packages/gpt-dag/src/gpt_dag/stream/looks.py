"""How each part of an expression is written: drawn apart from what it says."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_dag.stream.bits import FIELDS, below, field, threshold, words
from gpt_dag.stream.law import STYLES, Law
from gpt_dag.stream.tables import CARDINAL, DIGITS, GLUED, SPELLED, VARIANTS

AND, COMMA, GROUPED = 0.75, 0.75, 0.1
MINUS_SIGN, SAID_MINUS = 0.9, 0.35
"""A number in digits mostly has the sign "-"; the word for a sign is "minus", else "negative"."""
PERCENT_SIGN, PERCENT_WORD = 0.8, 0.95
"""After digits: "%", up to the second " percent", else " %"; after words: the second or " %"."""
WORDS_PER_NUMBER = 4


class Looks(NamedTuple):
    """All (B, N) int64 but where said; those of an operator stand at the number before it."""

    way: Tensor
    """DIGITS, GLUED, CARDINAL or SPELLED."""
    with_and: Tensor
    comma: Tensor
    sign: Tensor
    """Place in `SIGNS`."""
    percent: Tensor
    """Place in `PERCENTS`."""
    words_open: Tensor
    """1: "open parenthesis"."""
    words_close: Tensor
    operator: Tensor
    """0: symbol, 1: simple words, 2: any words."""
    variant: Tensor
    """Below `VARIANTS`."""
    redundant: Tensor
    """(B, N) bool: a pair of parentheses around the number."""
    redundant_step: Tensor
    """(B, D) bool: a pair around the result of the step, in the order of evaluation."""


def draw_looks(law: Law, style: Tensor, negative: Tensor, percent: Tensor, keys: Tensor) -> Looks:
    """style, keys: (B,); negative, percent: (B, N) bool, of the numbers."""
    N = law.max_numbers
    a, b, c, d = words(keys, WORDS_PER_NUMBER, N).unbind(-2)
    shares = torch.tensor([tuple(style) for style in STYLES.values()], device=keys.device) * FIELDS
    digits, cardinal, symbol, simple, brackets, _ = shares.round().long()[style].T[..., None]
    number, said = field(a, 0), field(a, 1)
    numeric, symbols = number < digits, digits >= FIELDS  # a style of symbols has no words at all
    way = torch.where(numeric, DIGITS, torch.where(number < digits + cardinal, CARDINAL, SPELLED))
    word = torch.where(field(a, 2) < threshold(SAID_MINUS), 2, 3)
    sign = torch.where(numeric & ((said < threshold(MINUS_SIGN)) | symbols), 1, word) * negative
    way = torch.where(sign == 1, GLUED, way)
    comma = field(b, 0) < torch.where(numeric, threshold(GROUPED), threshold(COMMA))
    mark = field(a, 3)
    plain = torch.where(numeric & (mark < threshold(PERCENT_SIGN)), 1, 2)
    marked = torch.where(symbols, 1, torch.where(mark >= threshold(PERCENT_WORD), 3, plain)) * percent
    spoken = field(b, 1)
    operator = (spoken >= symbol).long() + (spoken >= symbol + simple)
    again = threshold(law.p_redundant)
    return Looks(
        way=way,
        with_and=(field(b, 2) < threshold(AND)).long(),
        comma=comma.long(),
        sign=sign,
        percent=marked,
        words_open=(field(c, 0) >= brackets).long(),
        words_close=(field(c, 1) >= brackets).long(),
        operator=operator,
        variant=below(VARIANTS, field(c, 2)),
        redundant=field(c, 3) < again,
        redundant_step=field(d, 0)[:, : law.max_ops] < again,
    )

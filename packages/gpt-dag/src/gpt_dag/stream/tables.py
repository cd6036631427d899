"""Every part of a text as tokens, written out once: layout only looks up and copies.

A row is a short run of tokens, e.g. "two hundred and five" at the places of thousands. A token carries its id, the
piece of text that it stands for (with the space, comma or hyphen before it) and its tags, all in one integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_dag.tags import VALUES, Role, place_class
from gpt_dag.tokens import ID, SMALL, TENS

GROUP = 1000  # numbers are cut into threes of digits
DIGITS, GLUED, CARDINAL, SPELLED = range(4)
"""How a number is written; GLUED: in digits, right after a minus sign."""
VARIANTS = 12  # of an operator: a multiple of all numbers of words
OPERATOR_WORDS = (
    ("+", "plus", ("plus", "added to")),
    ("-", "minus", ("minus", "subtract", "less")),
    ("*", "times", ("times", "multiplied by")),
    ("/", "divided by", ("divided by", "over", "divide by")),
)
"""For every class: symbol, simple words, all words."""
SIGNS = ("", " -", " minus", " negative")
PERCENTS = ("", "%", " percent", " %")
BITS = {"id": 7, "piece": 12, "role": 3, "place": 5, "value": 5, "negative": 2, "percent": 2, "operator": 3}
"""What a packed token holds, from the lowest bits on. Tags are 1 more than their class, so padding is 0."""
SHIFT = {name: sum(list(BITS.values())[:i]) for i, name in enumerate(BITS)}


class Token(NamedTuple):
    piece: str
    place: int = 0
    value: int = -1
    role: int = Role.NONE
    operator: int = -1


@dataclass(frozen=True)
class Table:
    """Row 0 is empty; token 0 is padding."""

    start: Tensor
    """(rows,) int64: where the row's tokens begin."""
    length: Tensor
    """(rows,) int64"""
    packed: Tensor
    """(tokens,) int64"""
    pieces: tuple[str, ...]
    opens: Tensor
    """(2, most + 1) rows: brackets or words, how many."""
    closes: Tensor
    signs: Tensor
    """(4,) rows in the order of `SIGNS`."""
    thousands: Tensor
    """(4 ways, 2, 1000) rows: way of writing, and or not, how many."""
    rest: Tensor
    """(4 ways, 2, 2, 2, 1000) rows: way, after thousands or not, comma or not, and or not, what."""
    decimals: Tensor
    """(2, 2, 4, 1000) rows: digits or words, first or later three, how many digits, what."""
    percents: Tensor
    """(4,) rows in the order of `PERCENTS`."""
    operators: Tensor
    """(4, 3, 12) rows: class; symbol, simple or any; variant."""

    @property
    def device(self) -> torch.device:
        return self.start.device


@lru_cache(maxsize=8)
def table(max_digits: int, most_parentheses: int, device: str) -> Table:
    """The table for numbers of at most so many digits before the point, on a device."""
    writer = _Writer(max_digits)
    groups = 10 ** max(0, min(3, max_digits - 3))  # thousands that occur
    ways = (DIGITS, GLUED, CARDINAL, SPELLED)
    parts = {
        "opens": [[writer.row(_repeat(look, k)) for k in range(most_parentheses + 1)] for look in OPENS],
        "closes": [[writer.row(_repeat(look, k)) for k in range(most_parentheses + 1)] for look in CLOSES],
        "signs": [writer.row(_tokens(sign)) for sign in SIGNS],
        "thousands": [[[writer.thousands(way, bool(a), n) for n in range(groups)] for a in range(2)] for way in ways],
        "rest": [
            [
                [[[writer.rest(way, t, c, a, n) for n in range(GROUP)] for a in (False, True)] for c in (False, True)]
                for t in (False, True)
            ]
            for way in ways
        ],
        "decimals": [
            [[[writer.decimals(w, later, d, n) for n in range(GROUP)] for d in range(4)] for later in (False, True)]
            for w in (False, True)
        ],
        "percents": [writer.row(_tokens(percent)) for percent in PERCENTS],
        "operators": [[writer.operators(k, words) for words in _variants(k)] for k in range(4)],
    }
    rows = {name: torch.tensor(part, device=device) for name, part in parts.items()}
    length = torch.tensor([len(row) for row in writer.rows], device=device)
    packed = torch.tensor([0, *(token for row in writer.rows for token in row)], device=device)
    start = 1 + length.cumsum(0) - length
    return Table(start, length, packed, tuple(writer.pieces), **rows)


OPENS = ((Token(" (", role=Role.OPEN),), (Token(" open"), Token(" parenthesis", role=Role.OPEN)))
CLOSES = ((Token(" )", role=Role.CLOSE),), (Token(" close"), Token(" parenthesis", role=Role.CLOSE)))


class _Writer:
    """Collects rows, equal ones once."""

    def __init__(self, max_digits: int) -> None:
        self.max_digits = max_digits
        self.rows: list[tuple[int, ...]] = [()]
        self.pieces: list[str] = [""]
        self._row_of: dict[tuple[Token, ...], int] = {(): 0}
        self._piece_of: dict[str, int] = {"": 0}

    def row(self, tokens: tuple[Token, ...]) -> int:
        if tokens not in self._row_of:
            self._row_of[tokens] = len(self.rows)
            self.rows.append(tuple(self._pack(token) for token in tokens))
        return self._row_of[tokens]

    def thousands(self, way: int, with_and: bool, number: int) -> int:
        if not number:
            return 0
        if way == CARDINAL:
            return self.row((*self._cardinal(number, with_and, 3), Token(" thousand")))
        return self.row(self._digits(str(number), way, 3))

    def rest(self, way: int, after: bool, comma: bool, with_and: bool, number: int) -> int:
        """The last three digits of the integer part; after: of thousands."""
        if way == CARDINAL:
            if after and not number:
                return 0
            tokens = self._cardinal(number, with_and, 0)
            if after and number >= 100 and comma:
                tokens = (tokens[0]._replace(piece="," + tokens[0].piece), *tokens[1:])
            linked = (Token(" and"),) if after and with_and and number < 100 else ()
            return self.row((*linked, *tokens))
        if not after:
            return self.row(self._digits(str(number), way, 0))
        tokens = self._digits(f"{number:03d}", SPELLED if way == SPELLED else GLUED, 0)
        if comma and way != SPELLED:
            tokens = (tokens[0]._replace(piece="," + tokens[0].piece), *tokens[1:])
        return self.row(tokens)

    def decimals(self, words: bool, later: bool, digits: int, number: int) -> int:
        """Three digits after the point, or fewer, the point before the first of them."""
        if number >= 10**digits or not digits:
            return 0
        point = () if later else (Token(" point" if words else "."),)
        least = -digits - 3 * later
        return self.row((*point, *self._digits(f"{number:0{digits}d}", SPELLED if words else GLUED, least)))

    def operators(self, operator: int, variants: tuple[str, ...]) -> list[int]:
        rows = []
        for phrase in variants:
            *first, last = _tokens(" " + phrase)
            rows.append(self.row((*first, last._replace(role=Role.OPERATOR_END, operator=operator))))
        return rows

    def _digits(self, digits: str, way: int, least: int) -> tuple[Token, ...]:
        """One token for every digit; the last one is at 10^least."""
        tokens = []
        for i, digit in enumerate(digits):
            space = " " if way == DIGITS and i == 0 else ""
            piece = " " + SMALL[int(digit)] if way == SPELLED else space + digit
            tokens.append(Token(piece, self._place(least + len(digits) - 1 - i), int(digit)))
        return tuple(tokens)

    def _cardinal(self, number: int, with_and: bool, exponent: int) -> tuple[Token, ...]:
        """A number below 1000 in words, in units of 10^exponent; for 0 "zero"."""
        tokens = []
        hundreds, small = divmod(number, 100)
        if hundreds:
            tokens += [Token(" " + SMALL[hundreds], self._place(exponent + 2), hundreds), Token(" hundred")]
            tokens += [Token(" and")] * (small > 0 and with_and)
        place = self._place(exponent)
        tens, units = divmod(small, 10)
        if small >= 20:
            tokens.append(Token(" " + TENS[tens - 2], place, VALUES.index(10 * tens)))
            tokens += [Token("-" + SMALL[units], place, units)] * (units > 0)
        elif small or not number:
            tokens.append(Token(" " + SMALL[small], place, small))
        return tuple(tokens)

    def _place(self, exponent: int) -> int:
        return max(0, place_class(exponent, self.max_digits))  # 0: of numbers with more digits, which do not occur

    def _pack(self, token: Token) -> int:
        if token.piece not in self._piece_of:
            self._piece_of[token.piece] = len(self.pieces)
            self.pieces.append(token.piece)
        word = token.piece.lstrip(" ,")
        word = word if len(word) == 1 else word.lstrip("-")
        fields = {
            "id": ID[word],
            "piece": self._piece_of[token.piece],
            "role": token.role + 1,
            "place": token.place + 1,
            "value": token.value + 1,
            "operator": token.operator + 1,
        }
        assert all(value < 1 << BITS[name] for name, value in fields.items()), f"{token} does not fit"
        return sum(value << SHIFT[name] for name, value in fields.items())


def unpack(packed: Tensor, name: str) -> Tensor:
    """One of `BITS` of packed tokens."""
    return (packed >> SHIFT[name]) & ((1 << BITS[name]) - 1)


def _tokens(text: str) -> tuple[Token, ...]:
    """Words with the spaces before them; "%" has none."""
    pieces = [" " + word for word in text.split()]
    return tuple(map(Token, pieces if text.startswith(" ") else [text] * bool(text)))


def _repeat(tokens: tuple[Token, ...], count: int) -> tuple[Token, ...]:
    return tokens * count


def _variants(operator: int) -> tuple[tuple[str, ...], ...]:
    symbol, simple, words = OPERATOR_WORDS[operator]
    return (symbol,) * VARIANTS, (simple,) * VARIANTS, words * (VARIANTS // len(words))

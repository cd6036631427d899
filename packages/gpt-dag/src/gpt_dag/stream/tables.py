"""Every part of a text as tokens, written out once: layout only looks up and copies.

A row is a short run of tokens, e.g. "two hundred and five" at the places of thousands, with the id and the tags of each
and with the text of all of them, the space, comma or hyphen before it included.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from gpt_dag.stream.law import MOST_DIGITS, MOST_OPS
from gpt_dag.tags import IGNORED, PLACE, VALUES, Role, place_class
from gpt_dag.tokens import ID, SMALL, TENS

GROUP = 1000  # numbers are cut into threes of digits
DIGITS, GLUED, CARDINAL, SPELLED = range(4)
"""How a number is written; GLUED: in digits, right after a minus sign."""
MOST_PARENTHESES = 2 * MOST_OPS + 1  # that open before one number: two for every step, and its own
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


class Token(NamedTuple):
    piece: str
    """Its text, with what separates it from the token before."""
    place: int = 0
    value: int = IGNORED
    role: int = int(Role.NONE)
    operator: int = IGNORED


@dataclass(frozen=True)
class Table:
    """Row 0 is empty; token 0 is padding."""

    start: Tensor
    """(rows,) int64: where the row's tokens begin."""
    length: Tensor
    """(rows,) int64"""
    ids: Tensor
    """(tokens,) int64"""
    tags: Tensor
    """(tokens, 6) int64; what is known of whole numbers only is missing."""
    widths: Tensor
    """(tokens,) int64: characters of each, what separates it from the token before included."""
    texts: tuple[str, ...]
    """Of every row."""
    opens: Tensor
    """(2, MOST_PARENTHESES + 1) rows: brackets or words, how many."""
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
def table(max_digits: int, device: str) -> Table:
    """The table for numbers of at most so many digits before the point, on a device."""
    written = _written()
    tags = written.tags.clone()
    tags[:, PLACE] -= (tags[:, PLACE] > 0).long() * (MOST_DIGITS - max_digits)  # counts from the highest place down
    parts = {f.name: getattr(written, f.name) for f in fields(Table) if f.name != "texts"} | {"tags": tags}
    return Table(texts=written.texts, **{name: part.to(device) for name, part in parts.items()})


@lru_cache(maxsize=1)
def _written() -> Table:
    """The table for numbers of MOST_DIGITS digits."""
    writer, both = _Writer(), (False, True)
    ways, groups, counts = (DIGITS, GLUED, CARDINAL, SPELLED), range(GROUP), range(MOST_PARENTHESES + 1)
    parts = {
        "opens": [[writer.row(look * k) for k in counts] for look in OPENS],
        "closes": [[writer.row(look * k) for k in counts] for look in CLOSES],
        "signs": [writer.row(_tokens(sign)) for sign in SIGNS],
        "thousands": [[writer.thousands(way, a) for a in both] for way in ways],
        "rest": [[[[writer.rest(way, t, c, a) for a in both] for c in both] for t in both] for way in ways],
        "decimals": [
            [[[writer.decimals(w, later, d, n) for n in groups] for d in range(4)] for later in both] for w in both
        ],
        "percents": [writer.row(_tokens(percent)) for percent in PERCENTS],
        "operators": [[writer.operators(k, words) for words in _variants(k)] for k in range(4)],
    }
    length = torch.tensor([len(row) for row in writer.rows])
    kinds = {token: kind for kind, token in enumerate(dict.fromkeys(chain.from_iterable(writer.rows)), start=1)}
    which = torch.tensor([0, *map(kinds.__getitem__, chain.from_iterable(writer.rows))])
    ids = torch.tensor([0, *map(_id, kinds)])[which]
    tags = torch.tensor([(IGNORED,) * 6, *map(_tags, kinds)])[which]
    widths = torch.tensor([0, *(len(token.piece) for token in kinds)])[which]
    texts = tuple("".join(token.piece for token in row) for row in writer.rows)
    parts = {name: torch.tensor(part) for name, part in parts.items()}
    return Table(1 + length.cumsum(0) - length, length, ids, tags, widths, texts, **parts)


OPENS = ((Token(" (", role=int(Role.OPEN)),), (Token(" open"), Token(" parenthesis", role=int(Role.OPEN))))
CLOSES = ((Token(" )", role=int(Role.CLOSE)),), (Token(" close"), Token(" parenthesis", role=int(Role.CLOSE))))


THOUSAND, HUNDRED, AND = Token(" thousand"), Token(" hundred"), Token(" and")


class _Writer:
    """Collects rows, equal ones once."""

    def __init__(self) -> None:
        self.rows: list[tuple[Token, ...]] = [()]
        self._row_of: dict[tuple[Token, ...], int] = {(): 0}
        self._rest: dict[tuple[int, bool, bool, bool], list[int]] = {}

    def row(self, tokens: tuple[Token, ...]) -> int:
        if tokens not in self._row_of:
            self._row_of[tokens] = len(self.rows)
            self.rows.append(tokens)
        return self._row_of[tokens]

    def thousands(self, way: int, with_and: bool) -> list[int]:
        """Rows of 0 to 999 thousands; none is an empty one."""
        if way == CARDINAL:
            rows = [self.row((*_cardinal(n, with_and, 3), THOUSAND)) for n in range(GROUP)]
        elif with_and:
            return self.thousands(way, False)
        else:
            rows = [self.row(_digits(str(n), way, 3)) for n in range(GROUP)]
        return [0, *rows[1:]]

    def rest(self, way: int, after: bool, comma: bool, with_and: bool) -> list[int]:
        """Rows of the last three digits of the integer part; after: of thousands."""
        if after and way == DIGITS:
            way = GLUED
        kind = (way, after, comma and after and way != SPELLED, with_and and way == CARDINAL)
        if kind not in self._rest:
            self._rest[kind] = [self.row(_rest(*kind, n)) for n in range(GROUP)]
        return self._rest[kind]

    def decimals(self, words: bool, later: bool, digits: int, number: int) -> int:
        """Three digits after the point, or fewer, the point before the first of them."""
        if number >= 10**digits or not digits:
            return 0
        point = () if later else (Token(" point" if words else "."),)
        least = -digits - 3 * later
        return self.row((*point, *_digits(f"{number:0{digits}d}", SPELLED if words else GLUED, least)))

    def operators(self, operator: int, variants: tuple[str, ...]) -> list[int]:
        rows = []
        for phrase in variants:
            *first, last = _tokens(" " + phrase)
            rows.append(self.row((*first, last._replace(role=int(Role.OPERATOR_END), operator=operator))))
        return rows


def _id(token: Token) -> int:
    word = token.piece.lstrip(" ,")
    return ID[word if len(word) == 1 else word.lstrip("-")]


def _tags(token: Token) -> tuple[int, ...]:
    return token.role, token.place, token.value, IGNORED, IGNORED, token.operator


def _tokens(text: str) -> tuple[Token, ...]:
    """Words with the spaces before them; "%" has none."""
    pieces = [" " + word for word in text.split()]
    return tuple(map(Token, pieces if text.startswith(" ") else [text] * bool(text)))


def _variants(operator: int) -> tuple[tuple[str, ...], ...]:
    symbol, simple, words = OPERATOR_WORDS[operator]
    return (symbol,) * VARIANTS, (simple,) * VARIANTS, words * (VARIANTS // len(words))


def _rest(way: int, after: bool, comma: bool, with_and: bool, number: int) -> tuple[Token, ...]:
    """The last three digits of an integer."""
    if way == CARDINAL and after and not number:
        return ()
    if way == CARDINAL:
        linked = (AND,) if after and with_and and number < 100 else ()
        tokens = (*linked, *_cardinal(number, with_and, 0))
        comma = comma and number >= 100
    else:
        tokens = _digits(f"{number:03d}" if after else str(number), way, 0)
    return (tokens[0]._replace(piece="," + tokens[0].piece), *tokens[1:]) if comma else tokens


def _digits(digits: str, way: int, least: int) -> tuple[Token, ...]:
    """One token for every digit; the last one is at 10^least."""
    highest = least + len(digits) - 1
    pieces = [" " + SMALL[int(digit)] for digit in digits] if way == SPELLED else list(digits)
    if way == DIGITS:
        pieces[0] = " " + pieces[0]
    return tuple(_said(piece, highest - i, int(digits[i])) for i, piece in enumerate(pieces))


def _cardinal(number: int, with_and: bool, exponent: int) -> tuple[Token, ...]:
    """A number below 1000 in words, in units of 10^exponent; for 0 "zero"."""
    tokens = []
    hundreds, small = divmod(number, 100)
    if hundreds:
        tokens += [_said(" " + SMALL[hundreds], exponent + 2, hundreds), HUNDRED]
        tokens += [AND] * (small > 0 and with_and)
    tens, units = divmod(small, 10)
    if small >= 20:
        tokens.append(_said(" " + TENS[tens - 2], exponent, VALUES.index(10 * tens)))
        tokens += [_said("-" + SMALL[units], exponent, units)] * (units > 0)
    elif small or not number:
        tokens.append(_said(" " + SMALL[small], exponent, small))
    return tuple(tokens)


@lru_cache(maxsize=512)
def _said(piece: str, exponent: int, value: int) -> Token:
    """A token that says a class of value, times 10^exponent."""
    return Token(piece, place_class(exponent, MOST_DIGITS), value)

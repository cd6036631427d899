"""One id per number word, operator word, digit and symbol: the vocabulary of worded and symbolic expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt_dag.parse import LONGEST, ParseError
from gpt_data.tokenizers.base import check_known, encode_each, write_description

PAD, END = "<|pad|>", "<|endoftext|>"
DIGITS = tuple("0123456789")
SYMBOLS = tuple(".-+*/()%")
SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = (*SMALL, *TENS, "hundred", "thousand", "and", "point", "minus", "negative", "percent")
OPERATOR_WORDS = ("plus", "added", "to", "subtract", "less", "times", "multiplied", "by", "over", "divided", "divide")
WORDS = (*NUMBER_WORDS, *OPERATOR_WORDS, "open", "close", "parenthesis")
VOCABULARY = (PAD, END, "=", *DIGITS, *SYMBOLS, *WORDS)
ID = {token: i for i, token in enumerate(VOCABULARY)}
SPECIALS = {PAD: ID[PAD], END: ID[END]}

SAME = {"−": "-", "×": "*", "÷": "/"}
"""What people also write."""
LEXEME = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9](?:[0-9]|,(?=[0-9]))*(?:\.[0-9]+)?)|(?P<word>[A-Za-z]+)|(?P<other>.)", re.DOTALL
)
GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")

Span = tuple[int, int]
"""Characters [start, end) of the text."""


class WordTokenizer:
    """A `gpt_data` tokenizer of 70 ids; pad is 0.

    Upper and lower case are one. Commas are dropped: in `1,604`, and between "thousand" and the number word after it.
    A hyphen joins tens and units ("fifty-eight"), is a minus where no letters touch it on both sides, and is an error
    between other words, and between tens and units where it touches one only ("fifty- eight"). Text that this
    vocabulary has no ids for is a ParseError (a ValueError) with the `.position` of the first character that does not
    fit; whether the tokens make an expression is not looked at.
    """

    name = "dag-words"
    vocab_size = len(VOCABULARY)
    pad_id, eot_id, equals_id = ID[PAD], ID[END], ID["="]
    special_tokens = SPECIALS

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(text.split(END)):
            ids += [self.eot_id] * (i > 0) + self.encode_with_offsets(part)[0]
        return ids

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[Span]]:
        """Ids of plain text, and the characters that each stands for."""
        pairs = list(lex(text))
        return [ID[token] for token, _ in pairs], [span for _, span in pairs]

    def encode_array(self, text: str) -> np.ndarray:
        return np.array(self.encode_with_offsets(text)[0], np.uint32)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` that encodes to them again if they come from text; padding is left out."""
        check_known(self, ids)
        text, before, operand_next = "", "", True
        sign = False  # the token before is the "-" of a number
        for token in (VOCABULARY[i] for i in ids if i != self.pad_id):
            if before in TENS and token in SMALL[1:10]:
                text += "-" + token
            else:
                text += ("" if not text or sign or _glued(before, token) else " ") + token
            sign = token == "-" and operand_next
            operand_next = token in ("+", "*", "/", "(", "-", "=", END, *OPERATOR_WORDS, "minus") or (
                token == "parenthesis" and before == "open"
            )
            before = token
        return text

    def token_bytes(self) -> None:
        """A word is written in more than one way."""

    def save(self, folder: Path | str) -> None:
        write_description(folder, f"{type(self).__module__}.{type(self).__name__}")

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> WordTokenizer:
        """What `gpt_data.load_tokenizer` calls for a folder of `save`."""
        return cls()


def _glued(before: str, token: str) -> bool:
    """Whether no space stands between two tokens: inside a number in digits, and before its percent sign."""
    if token == "." or before == ".":
        return True
    return before in DIGITS and (token in DIGITS or token == "%")


def lex(text: str) -> Iterator[tuple[str, Span]]:
    """Tokens of `VOCABULARY` with the characters that they stand for. Raises ParseError."""
    before = "space"  # kind of what stands directly before, without a space
    last = ""  # the token before, spaces or not
    for match in LEXEME.finditer(text):
        kind, start, end = match.lastgroup, match.start(), match.end()
        if kind == "number":
            if last in DIGITS:
                raise ParseError("expected an operator between two numbers", text, start)
            yield from _number(text, match)
            last = text[end - 1]
        elif kind == "word":
            last = match[0].lower()
            if last not in WORDS:
                raise ParseError(f"unknown word {match[0][:40]!r}", text, start)
            yield last, (start, end)
        elif kind == "other" and not _silent(text, start, before, last):
            last = SAME.get(match[0], match[0])
            if last not in ("=", *SYMBOLS) or last == ".":
                raise ParseError(_unknown(last), text, start)
            yield last, (start, end)
        before = kind or ""


def _number(text: str, match: re.Match[str]) -> Iterator[tuple[str, Span]]:
    """The digits and the point of a number written in digits."""
    literal = match[0]
    if len(literal) > LONGEST:
        raise ParseError(f"a number of more than {LONGEST} digits", text, match.start())
    if "," in literal and not GROUPED.fullmatch(literal):
        place = match.start() + literal.index(",")
        raise ParseError("commas must stand before every three digits, as in 1,604", text, place)
    for place, character in enumerate(literal, start=match.start()):
        if character != ",":
            yield character, (place, place + 1)


def _silent(text: str, place: int, before: str, last: str) -> bool:
    """Whether the comma or hyphen at `place` is part of how a number is spelled."""
    character = text[place]
    after = LEXEME.match(text, place + 1)
    if character == ",":
        word = re.match(r"\s*([A-Za-z]+)", text[place + 1 : place + 40])
        if last != "thousand" or not word or word[1].lower() not in (*SMALL, *TENS, "and"):
            raise ParseError("a comma stands only inside a number, as in 1,604 or 'one thousand, six'", text, place)
        return True
    if character != "-" or after is None:
        return False
    around = re.match(r"\s*([A-Za-z]+)", text[place + 1 : place + 40])
    units = around is not None and around[1].lower() in SMALL[1:10]
    halved = last in TENS and units and (before == "word") != (after.lastgroup == "word")
    if not halved and (before != "word" or after.lastgroup != "word"):
        return False
    if halved or last not in TENS or after[0].lower() not in SMALL[1:10]:
        raise ParseError("a hyphen joins tens and units only, as in fifty-eight; a minus has spaces", text, place)
    return True


def _unknown(character: str) -> str:
    if character == ".":
        return "a point needs digits on both sides"
    return f"unknown character {character!r}"

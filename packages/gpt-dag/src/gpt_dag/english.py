"""Worded, symbolic and mixed text to expression: the deterministic reader, against which a predictor is judged.

    expression = operand (operator operand)*            usual precedence, grouping to the left, as `parse` has it
    operand    = number | open expression close         open: "(" or "open parenthesis"; close likewise
    number     = [sign] (digits | words) [percent]      sign: "-", "minus" or "negative"; percent: "%" or "percent"
    words      = (cardinal | digit word+) ["point" digit word+]
    cardinal   = below 1000 ["thousand" [["and"] below 1000]]

It knows nothing of the sampler and shares no table with it.
"""

from __future__ import annotations

from gpt_dag.expression import Expression, Operator
from gpt_dag.number import Number
from gpt_dag.parse import LONGEST, ParseError, Yard
from gpt_dag.tokens import DIGITS, SMALL, TENS, Span, lex

UNITS = SMALL[:10]
COUNTING = (*SMALL[1:], *TENS)
"""Words that a number below 1000 may begin with."""
SIGNS = ("-", "minus", "negative")
PHRASES: dict[tuple[str, ...], Operator] = {
    ("+",): Operator.ADD,
    ("plus",): Operator.ADD,
    ("added", "to"): Operator.ADD,
    ("-",): Operator.SUBTRACT,
    ("minus",): Operator.SUBTRACT,
    ("subtract",): Operator.SUBTRACT,
    ("less",): Operator.SUBTRACT,
    ("*",): Operator.MULTIPLY,
    ("times",): Operator.MULTIPLY,
    ("multiplied", "by"): Operator.MULTIPLY,
    ("/",): Operator.DIVIDE,
    ("over",): Operator.DIVIDE,
    ("divided", "by"): Operator.DIVIDE,
    ("divide", "by"): Operator.DIVIDE,
}
OPEN, CLOSE = (("(",), ("open", "parenthesis")), ((")",), ("close", "parenthesis"))


def parse_english(text: str) -> Expression:
    """Reads one expression in words, symbols or both. Raises ParseError with the place in the text.

    >>> str(parse_english("five point two two minus three point two one three divided by two point three two"))
    '5.22 - 3.213 / 2.32'
    """
    tokens = _Tokens(text)
    yard = Yard()
    operand_next = True
    while operand_next or not tokens.ended:
        position = tokens.position
        if operand_next and tokens.take(*OPEN):
            yard.open(position)
        elif operand_next:
            yard.number(_number(tokens))
            operand_next = False
        elif tokens.take(*CLOSE):
            if not yard.close():
                raise ParseError("this parenthesis closes nothing", text, position)
        else:
            phrase = tokens.take(*PHRASES)
            if not phrase:
                raise tokens.unexpected("an operator or a closing parenthesis")
            yard.operator(PHRASES[phrase], position)
            operand_next = True
    unclosed = yard.finish()
    if unclosed is not None:
        raise ParseError("this parenthesis is never closed", text, unclosed)
    return yard.expression()


class _Tokens:
    """The tokens of a text and how many of them were read."""

    def __init__(self, text: str) -> None:
        self.text = text
        pairs: list[tuple[str, Span]] = list(lex(text))
        self.tokens = [token for token, _ in pairs]
        self.starts = [start for _, (start, _) in pairs] + [len(text)]
        self.next = 0

    @property
    def ended(self) -> bool:
        return self.next == len(self.tokens)

    @property
    def position(self) -> int:
        """Of the next token in the text."""
        return self.starts[self.next]

    def take(self, *phrases: tuple[str, ...]) -> tuple[str, ...]:
        """The one of `phrases` that comes next, which is then read; () if none does."""
        for phrase in phrases:
            if tuple(self.tokens[self.next : self.next + len(phrase)]) == phrase:
                self.next += len(phrase)
                return phrase
        return ()

    def word(self, words: tuple[str, ...]) -> str:
        """The next token if it is one of `words`, which is then read; else an empty text."""
        if self.ended or self.tokens[self.next] not in words:
            return ""
        self.next += 1
        return self.tokens[self.next - 1]

    def run(self, words: tuple[str, ...]) -> list[str]:
        """As many tokens as are of `words`."""
        first = self.next
        while self.word(words):
            pass
        return self.tokens[first : self.next]

    def unexpected(self, wanted: str) -> ParseError:
        found = "the end" if self.ended else repr(self.tokens[self.next])
        return ParseError(f"expected {wanted}, found {found}", self.text, self.position)


def _number(tokens: _Tokens) -> Number:
    position = tokens.position
    negative = bool(tokens.word(SIGNS))
    if whole := "".join(tokens.run(DIGITS)):
        fraction = "".join(tokens.run(DIGITS)) if tokens.word((".",)) else ""
    else:
        whole = _whole(tokens)
        fraction = _spelled(tokens.run(UNITS)) if tokens.word(("point",)) else None
        if fraction == "":
            raise tokens.unexpected("a digit after 'point'")
        fraction = fraction or ""
    if max(len(whole), len(fraction)) > LONGEST:
        raise ParseError(f"a number of more than {LONGEST} digits", tokens.text, position)
    percent = bool(tokens.word(("%", "percent")))
    return Number(int(whole), int(fraction or 0), len(fraction), negative, percent)


def _whole(tokens: _Tokens) -> str:
    """The digits of an integer in words."""
    first = tokens.next
    if len(digits := tokens.run(UNITS)) > 1 or digits == ["zero"]:
        return _spelled(digits)
    tokens.next = first
    value = _below_thousand(tokens, "a number or an opening parenthesis")
    if tokens.word(("thousand",)):
        value *= 1000
        linked = tokens.word(("and",))
        if linked or (tokens.tokens[tokens.next : tokens.next + 1] and tokens.tokens[tokens.next] in COUNTING):
            value += _below_thousand(tokens, "a number after 'thousand and'")
    return str(value)


def _below_thousand(tokens: _Tokens, wanted: str) -> int:
    """1 to 999, e.g. "two hundred and five" or "forty-two"."""
    word = tokens.word(COUNTING)
    if not word:
        raise tokens.unexpected(wanted)
    if word not in UNITS or not tokens.word(("hundred",)):
        return _below_hundred(tokens, word)
    hundreds = 100 * UNITS.index(word)
    linked = tokens.word(("and",))
    word = tokens.word(COUNTING)
    if linked and not word:
        raise tokens.unexpected("a number after 'hundred and'")
    return hundreds + (_below_hundred(tokens, word) if word else 0)


def _below_hundred(tokens: _Tokens, word: str) -> int:
    """The number that begins with `word`, which was read."""
    if word in SMALL:
        return SMALL.index(word)
    unit = tokens.word(UNITS[1:])
    return 10 * (TENS.index(word) + 2) + (UNITS.index(unit) if unit else 0)


def _spelled(digits: list[str]) -> str:
    return "".join(str(UNITS.index(digit)) for digit in digits)

"""The reader and the writer of all styles, against each other and against what people write wrong."""

import doctest
from random import Random

import pytest

import gpt_dag.english
from gpt_dag import ParseError, evaluate, parse
from gpt_dag.english import parse_english
from gpt_dag.stream import STYLES
from gpt_dag.tokens import VOCABULARY, WordTokenizer
from gpt_dag.wording import cardinal, write

EXPRESSIONS = [
    "5.22 - 3.213 / 2.32",
    "-(0.05)".replace("(", "").replace(")", ""),
    "1604.45 - (4 - -3) * 46.4%",
    "8 / (4 / 2) / (1 + 10005)",
    "((1 - 2) - (3 - 4)) * 999999",
    "0 * -0.0 + 12000",
]


def test_the_example_of_the_docstring():
    assert doctest.testmod(gpt_dag.english).failed == 0


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_what_is_written_in_any_style_is_read_again(text, style):
    expression = parse(text)
    for seed in range(5):
        written = write(expression, style, Random(seed))
        assert parse_english(written) == expression
        assert WordTokenizer().encode(written)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (58, "fifty-eight"),
        (100, "one hundred"),
        (1604, "one thousand, six hundred and four"),
        (2005, "two thousand and five"),
        (120_300, "one hundred and twenty thousand, three hundred"),
    ],
)
def test_cardinals(number, words):
    assert cardinal(number) == words
    assert evaluate(parse_english(words)) == number
    assert evaluate(parse_english(cardinal(number, with_and=False, comma=False))) == number


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("minus three minus minus three", "-3 - -3"),
        ("seven less two over four", "7 - 2 / 4"),
        ("one zero zero six point one zero four", "1006.104"),
        ("zero five percent divide by 5 %", "5% / 5%"),
        ("( 2 added to two close parenthesis multiplied by -9", "(2 + 2) * -9"),
        ("two thousand and three hundred", "2300"),
        ("TWENTY two subtract twenty-two", "22 - 22"),
        ("six hundred four", "604"),
    ],
)
def test_ways_to_say_it(text, symbols):
    assert parse_english(text) == parse(symbols)


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "expected a number"),
        (" \n", 2, "found the end"),
        ("five twenty", 5, "found 'twenty'"),
        ("twenty zero", 7, "found 'zero'"),
        ("one two hundred", 8, "found 'hundred'"),
        ("twelve hundred", 7, "found 'hundred'"),
        ("one hundred and", 15, "number after 'hundred and'"),
        ("one thousand and plus two", 17, "number after 'thousand and'"),
        ("point five", 0, "found 'point'"),
        ("five point", 10, "a digit after 'point'"),
        ("five point twenty", 11, "a digit after 'point'"),
        ("5 point five", 2, "found 'point'"),
        ("5 five", 2, "found 'five'"),
        ("(five", 0, "never closed"),
        ("open parenthesis two plus (three)", 0, "never closed"),
        ("five close parenthesis", 5, "closes nothing"),
        ("open five", 0, "found 'open'"),
        ("five divided six", 5, "found 'divided'"),
        ("minus minus five", 6, "found 'minus'"),
        ("five percent percent", 13, "found 'percent'"),
        ("five = 5", 5, "found '='"),
        ("five plus NaN", 10, "unknown word 'NaN'"),
        ("one " * 2000, 0, "more than 1000 digits"),
    ],
)
def test_text_that_is_no_expression_is_refused_at_its_place(text, position, problem):
    with pytest.raises(ParseError, match=problem) as error:
        parse_english(text)
    assert error.value.position == position


def test_no_run_of_words_breaks_the_reader():
    rng, read = Random(0), 0
    for _ in range(500):
        text = " ".join(rng.choices(VOCABULARY[3:], k=rng.randint(1, 6)))
        try:
            expression = parse_english(text)
        except ParseError as error:
            assert 0 <= error.position <= len(text)
        else:
            read += 1
            assert parse_english(write(expression, "spelled")) == expression
    assert read > 12


def test_thousands_of_parentheses_are_no_problem():
    assert evaluate(parse_english("(" * 5000 + "two" + ")" * 5000)) == 2


def test_an_error_in_a_long_text_shows_where():
    with pytest.raises(ParseError, match=r"at position 40000 of 'million\.\.\.' \(40007 characters\)|million") as error:
        parse_english("one plus " * 4444 + "one million")
    assert len(str(error.value)) < 400


def test_unknown_styles_and_cardinals_are_refused():
    with pytest.raises(ValueError, match="style is 'loud', expected one of symbols, cardinal"):
        write(parse("1"), "loud")
    with pytest.raises(ValueError, match="from 0 to 999999, got 1000000"):
        cardinal(10**6)

"""Tags to plans: exact from true tags in every style, and never a plan from tags that make none."""

from fractions import Fraction

import pytest
import torch

from gpt_dag.predictor.decode import Problem, decode
from gpt_dag.stream import Law, sample
from gpt_dag.tags import OPERATOR, PLACE, ROLE, VALUE, Role


def test_true_tags_of_every_style_give_the_plans_that_were_drawn():
    drawn = sample(Law(min_ops=0, max_ops=8), 400, seed=5)
    read = decode(drawn.layout.tags, max_digits=4)
    assert not read.invalid.any()
    assert read.plans.fractions() == drawn.plans.fractions()
    assert torch.equal(read.plans.count, drawn.plans.count)


def test_long_numbers_in_words_and_digits_are_read_too():
    drawn = sample(Law(min_ops=0, max_ops=2, max_digits=6, max_decimals=6), 300, seed=8)
    read = decode(drawn.layout.tags, max_digits=6)
    assert not read.invalid.any() and read.plans.fractions() == drawn.plans.fractions()


def test_the_batch_and_its_padding_do_not_matter():
    drawn = sample(Law(min_ops=0, max_ops=5), 8, seed=6)
    together = decode(drawn.layout.tags, max_digits=4).plans.expressions()
    for row, expression in enumerate(together):
        tags = drawn.layout.tags[row : row + 1, : drawn.layout.length[row]]
        assert decode(tags, max_digits=4).plans.expressions() == [expression]


def tags_of(text):
    """(1, T, 6) of an expression in symbols, as a perfect network would tag it."""
    tags = torch.full((1, len(text), 6), 0)
    for i, character in enumerate(text):
        if character.isdigit():
            start = max(text.rfind(other, 0, i) for other in "+-*/() ") + 1
            point = text.find(".", start)
            end = next((j for j in range(i, len(text)) if text[j] not in "0123456789."), len(text))
            point = end if point < 0 or point > end else point
            exponent = point - i - 1 if i < point else point - i
            tags[0, i, PLACE], tags[0, i, VALUE] = 4 - exponent, int(character)
            tags[0, i, ROLE] = Role.NUMBER_END if i == end - 1 else Role.NONE
        elif character in "+-*/":
            tags[0, i, ROLE], tags[0, i, OPERATOR] = Role.OPERATOR_END, "+-*/".index(character)
        elif character in "()":
            tags[0, i, ROLE] = Role.OPEN if character == "(" else Role.CLOSE
    return tags


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("2-3-4", -5),
        ("2/(4*(1.5-0.5))", Fraction(1, 2)),
        ("12.0625-1234", Fraction(120625, 10**4) - 1234),
        ("((3))", 3),
    ],
)
def test_precedence_parentheses_and_places(text, value):
    read = decode(tags_of(text), max_digits=4)
    assert not read.invalid.any()
    assert read.plans.fractions() == [value]


@pytest.mark.parametrize(
    ("text", "problem", "token"),
    [
        ("", Problem.EMPTY, 0),
        ("   ", Problem.EMPTY, 0),
        ("2+", Problem.ENDS_EARLY, 1),
        ("+2", Problem.NO_OPERAND, 0),
        ("2++3", Problem.NO_OPERAND, 2),
        ("2 3", Problem.NO_OPERATOR, 2),
        ("2(3)", Problem.NO_OPERATOR, 1),
        ("()", Problem.NO_OPERAND, 1),
        ("2)", Problem.UNOPENED, 1),
        ("(2", Problem.UNCLOSED, 0),
        ("((2)+3", Problem.UNCLOSED, 0),
        ("2+(3*4", Problem.UNCLOSED, 2),
        ("2+3)*(4", Problem.UNOPENED, 3),
    ],
)
def test_what_makes_no_expression_is_named_with_its_place(text, problem, token):
    read = decode(tags_of(text), max_digits=4)
    assert read.problem.tolist() == [problem] and read.token.tolist() == [token]
    assert read.complaint(0)
    assert len(read.plans.fractions()) == 1, "something harmless to execute"


def test_valid_rows_have_no_complaint():
    assert decode(tags_of("2+3"), max_digits=4).complaint(0) is None


@pytest.mark.parametrize(
    "change", ["same place twice", "rising", "a gap after the point", "no units", "no digits", "skipped", "high"]
)
def test_digits_that_make_no_number_are_no_number(change):
    tags = tags_of("5+12.34")
    if change == "same place twice":
        tags[0, 3, PLACE] = tags[0, 2, PLACE]
    elif change == "rising":
        tags[0, 3, PLACE] = 1
    elif change == "a gap after the point":
        tags[0, 6, PLACE] += 1
    elif change == "skipped":  # 12.34 as 1_2.34
        tags[0, 2, PLACE] = 1
    elif change == "high":  # 5 as 50
        tags[0, 0, PLACE] = 3
    elif change == "no units":
        tags[0, 2:4, PLACE] = 0
    else:
        tags[0, 2:, PLACE] = 0
    read = decode(tags, max_digits=4)
    assert read.invalid.all()
    assert read.problem.tolist() == [Problem.NO_DIGITS if change == "no digits" else Problem.DIGITS]


def test_tens_and_units_share_a_place():
    tags = torch.zeros(1, 2, 6, dtype=torch.int64)  # "fifty" "eight"
    tags[0, :, PLACE] = 4
    tags[0, :, VALUE] = torch.tensor([23, 8])  # the classes of 50 and 8
    tags[0, 1, ROLE] = Role.NUMBER_END
    assert decode(tags, max_digits=4).plans.fractions() == [58]
    assert decode(tags.flip(1), max_digits=4).invalid.all(), "eight fifty"


def test_digits_after_the_last_number_are_an_error():
    tags = tags_of("2+3 4")
    tags[0, 4, ROLE] = Role.NONE
    assert decode(tags, max_digits=4).problem.tolist() == [Problem.DIGITS]


def test_one_bad_row_leaves_the_others_alone():
    width = 5
    rows = [torch.nn.functional.pad(tags_of(t), (0, 0, 0, width - len(t)), value=-1) for t in ("2+3", "2++3", "(4)/8")]
    read = decode(torch.cat(rows), max_digits=4)
    assert read.invalid.tolist() == [False, True, False]
    values = read.plans.fractions()
    assert (values[0], values[2]) == (5, Fraction(1, 2))

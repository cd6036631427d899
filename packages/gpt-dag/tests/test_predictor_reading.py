"""From text to answer: exact values, places of every problem, never an exception; trees; agreement of the readers."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from gpt_dag.english import parse_english
from gpt_dag.expression import Expression
from gpt_dag.predictor import PredictorConfig, TagLogits, read
from gpt_dag.predictor.agreement import disagreement
from gpt_dag.predictor.drawing import decimals_of, draw_tree, exact, rounded, short
from gpt_dag.predictor.packing import Packing
from gpt_dag.tags import NEGATIVE, OPERATOR, PLACE, ROLE, VALUE, Role
from gpt_dag.tokens import VOCABULARY, WordTokenizer

TOKENIZER = WordTokenizer()


class Symbols(torch.nn.Module):
    """Stands for a trained network: right about whole numbers in digits, operators and parentheses."""

    pad_id = 0

    def __init__(self):
        super().__init__()
        self.config = PredictorConfig(TOKENIZER.vocab_size)
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids):
        packing = Packing(ids != 0)
        rows = [tag([VOCABULARY[i] for i in row if i]) for row in ids.tolist()]
        tags = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        packed = packing.pack(tags)
        columns = [F.one_hot(packed[:, c], n).float() for c, n in enumerate(self.config.classes)]
        return TagLogits(torch.cat(columns, -1), self.config.classes, packing)


def tag(tokens):
    tags = torch.zeros(len(tokens), 6, dtype=torch.int64)
    negative = False
    for i, token in enumerate(tokens):
        digits_left = next((j for j in range(i, len(tokens)) if not tokens[j].isdigit()), len(tokens)) - i
        before = tags[i - 1, ROLE] if i else Role.OPEN
        if token.isdigit():
            tags[i, PLACE], tags[i, VALUE] = max(1, 5 - digits_left), int(token)
            if digits_left == 1:
                tags[i, ROLE], tags[i, NEGATIVE], negative = Role.NUMBER_END, int(negative), False
        elif token in "()":
            tags[i, ROLE] = Role.OPEN if token == "(" else Role.CLOSE
        elif token == "-" and before in (Role.OPEN, Role.OPERATOR_END):
            negative = True
        else:
            tags[i, ROLE], tags[i, OPERATOR] = Role.OPERATOR_END, "+-*/".index(token)
    return tags


def reading(text):
    return read(Symbols(), TOKENIZER, [text])[0]


def test_answers_are_exact_and_in_the_order_of_the_texts():
    texts = ["1 / 3 + 1 / 6", "7", "8 * (2 - 12)", "1000 / 8 / 5", "- 5 - - 5"]
    answers = [Fraction(1, 2), 7, -80, 25, 0]
    assert [r.answer for r in read(Symbols(), TOKENIZER, texts)] == answers
    assert read(Symbols(), TOKENIZER, []) == []


@pytest.mark.parametrize(
    ("text", "problem", "position"),
    [
        ("", "there is no expression", 0),
        ("  ", "there is no expression", 0),
        ("2 + banana", "unknown word 'banana'", 4),
        ("2 + $3", "unknown character '$'", 4),
        ("2 + 2 = 4", "an expression has no '='", 6),
        ("2 +", "the expression ends where an operand should follow", 2),
        ("2 + (3", "this parenthesis is never closed", 4),
        ("2 * * 3", "a number or an open parenthesis should stand here", 4),
        ("12 / (5 - 5)", "division by zero", 3),
        ("1 + 4 / 0 - 2 / 7", "division by zero", 6),
        ("1 + 123456", "these digits make no number of the size that the model knows", 5),
        ("1 + " * 2050 + "1", "the text has 4101 tokens, more than 4096", 8192),
    ],
)
def test_what_has_no_answer_says_why_and_where(text, problem, position):
    found = reading(text)
    assert found.answer is None and found.values == ()
    assert found.problem == problem and found.position == position


def test_one_bad_text_does_not_spoil_the_others():
    found = read(Symbols(), TOKENIZER, ["2 + 3", "nonsense", "1 / 0", "4 * 4"])
    assert [r.answer for r in found] == [5, None, None, 16]


def test_the_tree_shows_every_node_its_value_and_its_words():
    lines = draw_tree(reading("5 - 30 / (4 * 2)")).splitlines()
    assert [line.split()[-2 if '"' in line else -1] for line in lines][:2] == ["1.25", "5"]
    assert [line.lstrip("│├└─ ").split()[0] for line in lines] == [
        "-",
        "number",
        "/",
        "number",
        "*",
        "number",
        "number",
    ]
    assert '"30"' in lines[3] and "3.75" in lines[2]


def test_a_chain_of_a_thousand_is_drawn():
    lines = draw_tree(reading("1" + " + 1" * 1000)).splitlines()
    assert len(lines) == 2001 and lines[0].split() == ["+", "1001"]


@pytest.mark.parametrize(
    ("value", "text", "brief"),
    [
        (Fraction(7), "7", "7"),
        (Fraction(-1, 8), "-1/8 = -0.125", "-0.125"),
        (Fraction(44487, 11600), "44487/11600 ≈ 3.8350862069", "≈ 3.8350862069"),
        (Fraction(2, 3), "2/3 ≈ 0.666666666667", "≈ 0.666666666667"),
        (Fraction(1, 2**20), "1/1048576 = 0.00000095367431640625", "≈ 9.53674316406e-7"),
        (Fraction(10**20, 3), "100000000000000000000/3 ≈ 3.33333333333e19", "≈ 3.33333333333e19"),
        (Fraction(0), "0", "0"),
    ],
)
def test_values_are_written_exactly_and_rounded_only_where_it_says_so(value, text, brief):
    assert exact(value) == text
    assert short(value) == brief


def test_decimals_are_counted_and_rounding_is_correct():
    assert [decimals_of(Fraction(1, n)) for n in (1, 2, 40, 3, 125, 6)] == [0, 1, 3, None, 3, None]
    assert rounded(Fraction(999_999_999_999_6, 10)) == "1000000000000"
    assert rounded(Fraction(-1, 3 * 10**9)) == "-3.33333333333e-10"


@pytest.mark.parametrize(
    ("read_as", "text", "problem", "position"),
    [
        ("2 + 3 * 4", "2 + 3 * 4", None, None),
        ("(2 + 3) * 4", "2 + 3 * 4", "another operation or other parentheses", 2),
        ("2 - 3 * 4", "2 + 3 * 4", "another operation or other parentheses", 2),
        ("2 + 5 * 4", "2 + 3 * 4", "the number 5 where the text says 3", 4),
        ("2 + 3", "2 + 3 * 4", "2 numbers, the text has 3", 4),
    ],
)
def test_two_readers_that_differ_are_told_apart(read_as, text, problem, position):
    found = disagreement(reading(read_as), parse_english(text))
    if problem is None:
        assert found is None
    else:
        assert problem in found[0] and found[1] == position


def test_equal_values_of_other_trees_are_a_disagreement():
    assert disagreement(reading("2 + 2 + 2"), parse_english("2 + (2 + 2)")) is not None


def test_expressions_keep_where_their_operators_stand():
    expression = reading("(1 + 2) * 3 - 4").expression
    assert isinstance(expression, Expression)
    assert {step.operator.value: step.position for step in expression.steps} == {"+": 3, "*": 8, "-": 12}

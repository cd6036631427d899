"""Multiple choice under its four rules, with a model whose scores are written down in a table."""

import math
import random

import pytest

from gpt_eval import RULES, MultipleChoiceItem, Score, multiple_choice_accuracy


class TableModel:
    """Answers from a table {continuation: (logprob, tokens)} and remembers what it was asked."""

    def __init__(self, table):
        self.table = table
        self.asked = []

    def loglikelihood(self, pairs):
        self.asked.append(list(pairs))
        return [Score(self.table[text][0], False, self.table[text][1]) for _, text in pairs]

    def generate(self, prompts, *, max_tokens, stop=()):
        raise NotImplementedError


def choose(table, choices, **options):
    """The predicted index of one item, by rule."""
    item = MultipleChoiceItem("Q:", tuple(choices), gold=0)
    results = multiple_choice_accuracy(TableModel(table), [item], **options)
    return {rule: result.predictions[0] for rule, result in results.items()}


def test_every_rule_divides_by_its_own_length():
    # One choice per rule that only this rule prefers.
    #              log-probability, tokens    sum   /char  /byte  /token
    table = {
        " ab": (-2.0, 1),  #                 -2.0   -1.0   -1.0   -2.0
        " abcdefghij": (-4.0, 2),  #         -4.0   -0.4   -0.4   -2.0
        " ééééééééé": (-4.5, 3),  #          -4.5   -0.5   -0.25  -1.5
        " abcdefgh": (-5.0, 5),  #           -5.0   -0.625 -0.625 -1.0
    }
    chosen = choose(table, [text[1:] for text in table])
    assert chosen == {"sum": 0, "per_character": 1, "per_byte": 2, "per_token": 3}


def test_lengths_leave_the_delimiter_out():
    # With the delimiter counted, "a" would reach -1.0 / 5 and win.
    table = {"----a": (-1.0, 1), "----bcd": (-1.5, 1)}
    assert choose(table, ["a", "bcd"], delimiter="----")["per_character"] == 1


def test_the_first_of_equals_wins():
    assert set(choose({" x": (-1.0, 1), " y": (-1.0, 1)}, ["x", "y"]).values()) == {0}
    assert set(choose({" y": (-1.0, 1), " x": (-1.0, 1)}, ["y", "x"]).values()) == {0}


def test_a_choice_without_tokens_never_wins_and_is_counted():
    item = MultipleChoiceItem("Q:", ("x", "y"), gold=1)
    for result in multiple_choice_accuracy(TableModel({" x": (0.0, 0), " y": (-9.0, 2)}), [item]).values():
        assert result.predictions == (1,)
        assert result.num_unscored == 1


def test_an_item_without_any_score_is_wrong_even_if_the_first_choice_is_right():
    item = MultipleChoiceItem("Q:", ("x", "y"), gold=0)
    for result in multiple_choice_accuracy(TableModel({" x": (0.0, 0), " y": (-math.inf, 1)}), [item]).values():
        assert result.predictions == (-1,)
        assert result.accuracy == 0.0


def test_accuracy_standard_error_and_chance_over_items_of_different_sizes():
    table = {f" {letter}": (-float(i + 1), 1) for i, letter in enumerate("abcd")}  # prefers "a", then "b" ...
    items = [
        MultipleChoiceItem("1", ("a", "b"), gold=0),
        MultipleChoiceItem("2", ("b", "a"), gold=1),
        MultipleChoiceItem("3", ("a", "b", "c", "d"), gold=3),
        MultipleChoiceItem("4", ("d", "c"), gold=1),
    ]
    result = multiple_choice_accuracy(TableModel(table), items)["sum"]
    assert result.predictions == (0, 1, 0, 1)
    assert result.accuracy == 0.75
    assert result.standard_error == pytest.approx(math.sqrt((3 * 0.25**2 + 0.75**2) / 3) / math.sqrt(4))
    assert result.baseline == pytest.approx((0.5 + 0.5 + 0.25 + 0.5) / 4)
    assert result.centered == pytest.approx((0.75 - 0.4375) / (1 - 0.4375))


def test_reversing_the_choices_reverses_the_predictions():
    # A bug that favours a position would not: tasks exist where the right answer is always the first.
    rng = random.Random(0)
    words = [f"{rng.getrandbits(40):x}" for _ in range(60)]
    table = {f" {word}": (-rng.random() * 20, rng.randint(1, 5)) for word in words}
    forward = [MultipleChoiceItem("Q", tuple(words[i : i + 3]), gold=0) for i in range(0, 60, 3)]
    backward = [MultipleChoiceItem("Q", item.choices[::-1], gold=2) for item in forward]
    ours, theirs = (multiple_choice_accuracy(TableModel(table), items) for items in (forward, backward))
    for rule in RULES:
        assert theirs[rule].predictions == tuple(2 - p for p in ours[rule].predictions)
        assert theirs[rule].accuracy == ours[rule].accuracy
    assert len(set(ours["sum"].predictions)) == 3


def test_the_model_is_asked_once_for_query_and_delimited_choice():
    model = TableModel({" x": (-1.0, 1), " y": (-2.0, 1)})
    items = [MultipleChoiceItem("Q1", ("x", "y"), 0), MultipleChoiceItem("Q2", ("y", "x"), 0)]
    multiple_choice_accuracy(model, items)
    assert model.asked == [[("Q1", " x"), ("Q1", " y"), ("Q2", " y"), ("Q2", " x")]]


def test_faults_are_named():
    item = MultipleChoiceItem("Q", ("x", "y"), 0)
    with pytest.raises(ValueError, match="empty list"):
        multiple_choice_accuracy(TableModel({}), [])
    with pytest.raises(ValueError, match="NaN for ' y'"):
        multiple_choice_accuracy(TableModel({" x": (-1.0, 1), " y": (math.nan, 1)}), [item])
    short = TableModel({" x": (-1.0, 1), " y": (-1.0, 1)})
    short.loglikelihood = lambda pairs: [Score(-1.0, True, 1)]
    with pytest.raises(ValueError, match="2 scores and returned 1"):
        multiple_choice_accuracy(short, [item])
    with pytest.raises(ValueError, match="two choices"):
        MultipleChoiceItem("Q", ("x",), 0)
    with pytest.raises(ValueError, match=r"0\.\.1; got 2"):
        MultipleChoiceItem("Q", ("x", "y"), 2)

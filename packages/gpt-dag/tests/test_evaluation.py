"""Exact match: intervals, items, scores and baselines; a held-out file and its evaluator (assertion 17)."""

import json
from decimal import Decimal
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from gpt_dag.english import parse_english
from gpt_dag.evaluation import TASKS, Item, Rate, Scores, baselines, draw_items, read_items, score, tasks, write_items
from gpt_dag.evaluation.math_problems import Skipped, last_number, math_problems, score_math
from gpt_dag.evaluation.report import accuracy_table
from gpt_dag.evaluation.tag_metrics import tag_metrics
from gpt_dag.expression import evaluate
from gpt_dag.predictor import PredictorConfig, TagLogits
from gpt_dag.predictor.packing import Packing
from gpt_dag.stream import Law, sample
from gpt_dag.tags import OPERATOR
from gpt_dag.tokens import WordTokenizer


@pytest.fixture(scope="module")
def items():
    return draw_items(Law(1, 6), 40, seed=4)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.27754), (5, 10, 0.23659, 0.76341), (10, 10, 0.72246, 1.0), (81, 263, 0.25531, 0.36619)],
)
def test_wilson_intervals(hits, n, low, high):
    """The last one is Newcombe's (1998) own example."""
    assert Rate(hits, n).interval == pytest.approx((low, high), abs=6e-5)


def test_rates_of_nothing_and_impossible_ones():
    assert Rate(0, 0).value is None and Rate(0, 0).interval == (0.0, 1.0) and str(Rate(0, 0)) == "n/a"
    assert str(Rate(3, 4)) == "75.0 % [30.1, 95.4]"
    with pytest.raises(ValueError, match="hits lie between 0 and n, got 5 of 4"):
        Rate(5, 4)


def test_a_held_out_file_scored_with_oracle_plans_and_with_none(tmp_path, items):
    write_items(tmp_path / "held_out.jsonl", items)
    loaded = read_items(tmp_path / "held_out.jsonl")
    assert loaded == items and len(loaded) == 40
    oracle = score(lambda texts: [evaluate(parse_english(text)) for text in texts], loaded)
    assert oracle.of() == Rate(40, 40)
    identity = score(lambda texts: [parse_english(text).numbers[0].value for text in texts], loaded)
    assert identity.of().value < 0.05


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: "),
        ("[1]", r"line 2: expected an object .*, got \[1\]"),
        ('{"english": "one"}', "line 2: no text under fraction; the line has english"),
        ('{"english": "one", "fraction": "1/0"}', "line 2: the denominator is 0"),
        ('{"english": "one", "fraction": "1e50000000"}', "line 2: fraction must be like 381/100"),
        ('{"english": "one", "fraction": true}', "line 2: no text under fraction"),
        (
            '{"english": "one", "fraction": "1", "n_ops": true}',
            "line 2: n_ops must be a number of operations, got True",
        ),
        ("[" * 100_000, "line 2: nested too deeply"),
        ('{"english": "one", "fraction": "one"}', "line 2: "),
        ('{"english": "one", "fraction": "1", "n_ops": "2"}', "line 2: n_ops must be a number of operations, got '2'"),
    ],
)
def test_lines_that_are_no_items_are_named(tmp_path, line, message):
    path = tmp_path / "items.jsonl"
    path.write_text('{"english": "one", "fraction": "1"}\n' + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_items(path)


def test_lines_of_other_encodings_and_separators(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text('{"english": "one\u2028", "fraction": 5, "style": null}\r\n', encoding="utf-8-sig")
    assert read_items(path) == [Item("one\u2028", Fraction(5))]
    path.write_bytes(b'\n{"english": "caf\xe9", "fraction": "1"}\n')
    with pytest.raises(ValueError, match=r"items\.jsonl, line 2: not UTF-8"):
        read_items(path)


def test_a_file_without_items_is_an_error(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="has no expressions; expected lines like"):
        read_items(tmp_path / "empty.jsonl")


def test_scores_count_no_answer_as_wrong():
    items = [
        Item("a", Fraction(n), style, ops) for n, style, ops in ((1, "x", 1), (2, "x", 2), (3, "y", 6), (4, "y", 0))
    ]
    scores = Scores(items, [Fraction(1), None, Fraction(3), Fraction(5)])
    assert scores.of() == Rate(2, 4) and scores.invalid() == Rate(1, 4)
    assert scores.between(1, 4) == Rate(1, 2) and scores.between(5, 8) == Rate(1, 1)
    assert scores.by_style() == {"x": Rate(1, 2), "y": Rate(1, 2)}
    figures = json.loads(json.dumps(scores.figures()))
    assert (figures["exact"], figures["exact_1_4"], figures["exact_5_8"], figures["invalid"]) == (0.5, 0.5, 1.0, 0.25)
    assert figures["intervals"]["exact_5_8"] == [pytest.approx(0.2065, abs=1e-4), 1.0]
    assert Scores(items[:2], [None, None]).figures()["exact_5_8"] is None, "nothing was tried"


def test_nearly_equal_is_not_equal():
    item = Item("a third", Fraction(1, 3))
    assert Scores([item], [Fraction(1 / 3)]).of() == Rate(0, 1)


def test_baselines_stand_beside_every_score(items):
    answers = baselines([*items, Item("no expression at all", Fraction(1))])
    assert set(answers) == {"commonest answer", "first number", "left to right"}
    assert answers["first number"][-1] is None
    easy = [Item("2 + 3 * 4", Fraction(14)), Item("(8 - 2) / 3", Fraction(2)), Item("5 - 5 / 0 * 1", Fraction(0))]
    assert baselines(easy)["left to right"] == [20, 2, None]
    assert baselines(easy)["first number"] == [2, 8, 5]
    scores = Scores(items, [item.answer for item in items])
    shown = accuracy_table(scores, {name: Scores(items, given[:-1]) for name, given in answers.items()})
    last = shown.splitlines()[-1]
    assert last.split()[:2] == ["all", "40"] and "100.0 %" in last and "91.2 to 100.0" in last
    assert "left to right" in shown.splitlines()[0] and "1 operation " in shown


@pytest.mark.parametrize("name", ["zero", "small", "large"])
def test_tasks_ask_for_what_they_say(name):
    values = [item.answer for item in TASKS[name](n=2, seed=1)]
    assert len(values) == 2
    assert {
        "zero": all(v == 0 for v in values),
        "small": all(0 < abs(v) < Fraction(1, 1000) for v in values),
        "large": all(abs(v) > 10**6 for v in values),
    }[name]


def test_the_length_task_covers_every_length():
    assert [item.n_ops for item in TASKS["length"](n=1, most=3)] == [1, 2, 3]


def test_an_impossible_law_is_an_error(monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 2)
    with pytest.raises(ValueError, match="only 0 of 1 expressions found"):
        draw_items(Law(0, 0, max_decimals=0), 1, 0, keep=lambda value: False)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She pays 3 + 4 = 7 dollars.", "7"),
        ("first 5, then\n#### 1,234", "1234"),
        ("#### $1,250.50.", "1250.50"),
        ("it is -3.0", "-3.0"),
        ("99 % of 1,000,000", "1000000"),
        ("none", None),
    ],
)
def test_the_number_of_an_answer(text, number):
    assert last_number(text) == (None if number is None else Decimal(number))


def test_word_problems_are_scored_exactly_and_closely(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    path.write_text(
        "".join(
            json.dumps({"question": q, "answer": f"so\n#### {a}"}) + "\n"
            for q, a in (("q", "1,000"), ("r", "3"), ("s", "7"))
        )
    )
    problems = math_problems("gsm8k", path)
    assert problems[0] == ("q\nAnswer:", Decimal(1000))

    def continue_text(prompt):
        if prompt.startswith("s"):
            raise ValueError("too long")
        return {"q": " 1000.0 of them", "r": " 3.0000001"}[prompt[0]]

    scored = score_math(continue_text, problems)
    assert (scored.exact, scored.close, scored.errors) == (Rate(1, 3), Rate(2, 3), 1)
    assert math_problems("svamp", None) == Skipped("no file was given for svamp")
    (tmp_path / "svamp.jsonl").write_text(json.dumps({"Body": "a.", "Question": "b?", "Answer": 2.0}) + "\n{}\n")
    assert math_problems("svamp", tmp_path / "svamp.jsonl", limit=1) == [("a. b?\nAnswer:", Decimal("2.0"))]
    with pytest.raises(ValueError, match="line 2: expected Body, Question, Answer"):
        math_problems("svamp", tmp_path / "svamp.jsonl")


class Noisy(torch.nn.Module):
    """Says the true tags, but for the operators, all of which it takes for "-"."""

    def __init__(self, layout):
        super().__init__()
        self.config = PredictorConfig(WordTokenizer.vocab_size)
        self.layout = layout

    def forward(self, ids):
        packing = Packing(ids != 0)
        tags = self.layout.tags.clone()
        tags[..., OPERATOR].clamp_(max=1)
        tags[..., OPERATOR][tags[..., OPERATOR] == 0] = 1
        packed = packing.pack(tags)
        columns = [F.one_hot(packed[:, c].clamp(min=0), n).float() for c, n in enumerate(self.config.classes)]
        return TagLogits(torch.cat(columns, -1), self.config.classes, packing)


def test_metrics_of_tags_stand_beside_their_majority():
    drawn = sample(Law(0, 4), 50, seed=9)
    layout = drawn.layout
    metrics = tag_metrics(Noisy(layout), [(layout.ids, layout.tags)])
    operators = drawn.plans.operator[drawn.plans.operator >= 0]
    minus = float((operators == 1).float().mean())
    assert metrics["operator_acc"] == pytest.approx(minus)
    assert metrics["baseline/operator_acc"] == pytest.approx(float(operators.bincount().max()) / len(operators))
    assert metrics["role_acc"] == metrics["place_acc"] == metrics["number_exact"] == 1
    assert metrics["baseline/role_acc"] < 0.9
    right = ((drawn.plans.operator == 1) | (drawn.plans.operator == -1)).all(1).float().mean()
    assert metrics["plan_exact"] == metrics["tags_exact"] == pytest.approx(float(right))
    assert metrics["exec_exact"] >= metrics["plan_exact"] and metrics["invalid_rate"] == 0

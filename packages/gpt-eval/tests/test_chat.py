"""Chat benchmarks: how they ask, how answers are read, and what a small fake model scores."""

import json
import math

import numpy as np
import pytest

from gpt_eval.chat import (
    base_program,
    calculate,
    chat_program,
    convert,
    gsm8k_answer,
    render_question,
    spellingbee,
)
from gpt_eval.chat.pass_at_k import pass_at_k
from gpt_eval.chat.program import cut
from gpt_eval.data.bundle import Bundle
from gpt_eval.errors import EvaluationError
from gpt_eval.model import Scored
from gpt_eval.suites import chatcore
from gpt_eval.task import Task
from gpt_eval.types import chat_answer, chat_choice, chat_code, code
from gpt_eval.types._answers import flexible_number, same_number, strict_number


class ByteModel:
    """Bytes are tokens; prefers the letter that it is told to."""

    name, max_length = "bytes", 4096

    def __init__(self, favourite="B", long_letters=False):
        self.favourite, self.long_letters = favourite, long_letters

    def encode(self, text, *, specials=False):
        return [1, *text.encode()] if specials or self.long_letters else list(text.encode())

    def chat_ids(self, messages):
        return [1, *messages[0]["content"].encode(), 2]

    def score(self, requests):
        favourite = self.favourite.encode()[0]
        return [Scored(np.float32([-0.5 if ids[0] == favourite else -2.0]), np.array([False])) for _, ids in requests]


def run_choice(rows, model, **options):
    task = Task("t", "chat_choice", "t.jsonl", **options)
    assert [chat_choice.check_row(row, task) for row in rows] == [None] * len(rows)
    items = chat_choice.make_items(task, rows, range(len(rows)), model, "core")
    return [chat_choice.grade(task, item, model.score(item.requests), "core") for item in items]


def test_the_question_has_the_letter_after_its_choice_without_a_space():
    assert render_question("Why?", ["A", "B"], ["So", "No "]) == (
        "Multiple Choice question: Why?\n- So=A\n- No =B\n\nRespond only with the letter of the correct answer."
    )


def test_choice_compares_letters_and_takes_them_from_the_row():
    rows = [
        {"question": "q", "choices": ["x", "y", "z"], "gold": 1},
        {"question": "q", "choices": ["x", "y"], "gold": 0},
        {"question": "q", "choices": ["x", "y"], "gold": 1, "letters": ["1", "2"]},
    ]
    assert [record.correct for record in run_choice(rows, ByteModel("B"))] == [1.0, 0.0, 0.0]  # equals: the first
    assert [record.correct for record in run_choice(rows, ByteModel("2"))] == [0.0, 1.0, 1.0]
    item = chat_choice.make_items(Task("t", "chat_choice", "t"), rows, [1], ByteModel(), "core")[0]
    assert [ids for _, ids in item.requests] == [(65,), (66,)]  # "A", not " A"
    assert item.requests[0][0] is item.requests[1][0] and item.index == 1


def test_a_letter_of_two_tokens_is_refused():
    with pytest.raises(EvaluationError, match=r"t.jsonl: row 1: the answer 'A' is 2 tokens of bytes's tokenizer"):
        run_choice([{"question": "q", "choices": ["x", "y"], "gold": 1}], ByteModel(long_letters=True))


def test_a_question_longer_than_the_model_keeps_its_end():
    model = ByteModel()
    model.max_length = 20
    record = run_choice([{"question": "q" * 50, "choices": ["x", "y"], "gold": 1}], model)[0]
    assert record.truncated and record.correct == 1.0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"gold": 2}, "gold is 2, expected 0..1"),
        ({"gold": True}, "gold is True"),
        ({"choices": ["x"]}, "at least two"),
        ({"letters": ["A", "A"]}, "2 different texts"),
        ({"letters": [1, 2]}, "2 different texts"),
        ({"letters": ["A", " "]}, "not blank"),
        ({"letters": []}, "2 different texts"),
        ({"question": " "}, "not blank"),
    ],
)
def test_wrong_choice_rows(change, words):
    row = {"question": "q", "choices": ["x", "y"], "gold": 1} | change
    assert words in chat_choice.check_row(row, Task("t", "chat_choice", "t"))


@pytest.mark.parametrize(
    "text, strict, marked, flexible",
    [
        ("So 3+4 = 7.\n#### 7", "7", "7", "7"),
        ("#### -1,234.5 apples #### 2", "-1,234.5", "-1234.5", "2"),
        ("#### 18.", "18.", "18.", "18."),
        ("It costs $1,000 in all", None, None, "$1,000"),
        ("The answer is 5 or 6", None, None, "6"),
        ("none", None, None, None),
        ("####7", None, None, "7"),
        ("#### ,", ",", None, None),
        ("#### .", ".", None, None),
    ],
)
def test_numbers_are_read_by_three_rules(text, strict, marked, flexible):
    assert (strict_number(text), gsm8k_answer(text), flexible_number(text)) == (strict, marked, flexible)


def test_harness_equality_ignores_what_it_says():
    gold = "He pays 1,000 - 2 = $998.\n#### 998"
    assert same_number("$998.", gold) and same_number("9,98", gold)
    assert not same_number("99", gold) and not same_number(None, gold)


def grade_answers(replies, **options):
    task = Task("g", "chat_answer", "g.jsonl", options=options)
    rows = [{"question": f"q{i}", "answer": "6 * 7 = 42\n#### 42"} for i in range(len(replies))]
    items = chat_answer.make_items(task, rows, range(len(rows)), None, "core")
    assert items[0].prompt == ({"role": "user", "content": "q0"},) and items[0].gold == "42"
    return [chat_answer.grade(task, item, texts, "core").correct for item, texts in zip(items, replies, strict=True)]


def test_answers_by_each_rule():
    replies = [["#### 42"], ["#### 42.0"], ["it is 42."], [""]]
    assert grade_answers(replies) == [1.0, 0.0, 0.0, 0.0]
    assert grade_answers(replies, extract="harness_strict") == [1.0, 0.0, 0.0, 0.0]
    assert grade_answers(replies, extract="harness_flexible") == [1.0, 0.0, 1.0, 0.0]
    assert grade_answers([["#### 1", "#### 42"]], n=2, temperature=1.0) == [1.0]
    with pytest.raises(EvaluationError, match="extract must be one of gsm8k"):
        grade_answers(replies, extract="guess")


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, (0.0, 50, 1)),
        ({"top_k": None}, (0.0, None, 1)),
        ({"n": 4}, (0.0, 50, 1)),
        ({"n": 4, "temperature": 0.7, "top_k": 8}, (0.7, 8, 4)),
    ],
)
def test_greedy_replies_are_asked_for_once(options, expected):
    task, row = Task("g", "chat_answer", "g.jsonl", options=options), {"question": "q", "answer": "#### 42"}
    settings = chat_answer.make_items(task, [row], [0], ByteModel(), "core")[0].generation
    assert (settings.temperature, settings.top_k, settings.n) == expected


def test_whether_a_calculator_was_there_is_recorded():
    task, row = Task("g", "chat_answer", "g.jsonl"), {"question": "q", "answer": "#### 42"}
    for said, expected in (({}, None), ({"tools": False}, False), ({"tools": True}, True)):
        model = type("Model", (ByteModel,), said)()
        item = chat_answer.make_items(task, [row], [0], model, "core")[0]
        record = chat_answer.grade(task, item, ["#### 42"], "core")
        assert chat_answer.summarize(task, [record]) == {"extract": "gsm8k", "tools": expected}


def test_the_spelling_bee_is_made_into_a_bundle(tmp_path):
    from gpt_eval.data.fetch import fetch

    ((path, rows),) = fetch(["spellingbee_local"], tmp_path)
    bundle = Bundle(tmp_path)
    task = bundle.tasks["spellingbee_local"]
    assert rows == 256 and path.is_file() and len(bundle.rows(task)) == 256 and task.type == "chat_answer"


def test_an_answer_without_a_number_is_a_wrong_row():
    task = Task("g", "chat_answer", "g.jsonl")
    for answer in ("42", "#### ,", "#### ."):
        assert "#### NUMBER" in chat_answer.check_row({"question": "q", "answer": answer}, task)
    assert chat_answer.check_row({"question": "q", "answer": "#### 42"}, task) is None


@pytest.mark.parametrize(
    "expression, value",
    [
        ("1,200 * 2", 2400),
        ("(3 + 4) / 2", 3.5),
        ("-7 // 2", -4),
        ("2 ** 10", None),
        ("1 / 0", None),
        ('"strawberry".count("r")', 3),
        ('"a" + "b"', None),
        ('"abc".upper()', None),
        ('__import__("os").getcwd()', None),
        ("(1).__class__", None),
        ('"a" * 1000000000', None),
        ("[1 for _ in range(9)]", None),
        ("9" * 999 + "*" + "9" * 999, None),
        ("(" * 500, None),
        ("", None),
        ("1e5", None),
        ("1e999", None),
        ("9" * 400 + ".0", None),
        ("0x10", None),
        ("1_0", None),
        ("2j * 2", None),
        ('"aa".count("a") + 1e5', None),
        ("1. + .5", 1.5),
    ],
)
def test_the_calculator_knows_arithmetic_and_counting_only(expression, value):
    assert calculate(expression) == value


def test_the_spelling_bee_is_a_function_of_the_number_and_right():
    rows = list(spellingbee.rows(64))
    assert rows[7] == spellingbee.row(7) and len({row["question"] for row in rows}) > 60
    task = Task("s", "chat_answer", "s.jsonl")
    for row in rows:
        assert chat_answer.check_row(row, task) is None
        word, rest = row["answer"].split(": ")
        letter = rest.split(". ")[1][0]
        assert gsm8k_answer(row["answer"]) == str(word.count(letter))
        assert word in row["question"].lower() and letter in row["question"]
    absent = sum(gsm8k_answer(row["answer"]) == "0" for row in rows)
    assert 0 < absent < 16
    assert len(set(spellingbee.WORDS)) == len(spellingbee.WORDS) > 400


PROMPT = (
    "from typing import List\n\nimport math\ndef helper(x):\n    return x\n\ndef f(x: int) -> int:\n    '''Adds 1.'''\n"
)
TEST = "def check(candidate):\n    assert candidate(1) == 2\n"
ROW = {"task_id": "t/0", "prompt": PROMPT, "test": TEST, "entry_point": "f"}


def test_programs_of_base_models_end_where_the_function_does():
    assert base_program("P", "    return 1\n\ndef other():\n    pass") == "P    return 1\n"
    assert cut("a\n#b") == "a" and cut("a\n  # b\nprint(1)") == "a\n  # b" and cut("none") == "none"


def test_programs_of_chat_models_are_the_first_block_after_the_prompts_imports():
    reply = "Sure:\n```python\ndef f(x):\n    return x + 1\n```\nand\n```\nother\n```"
    assert chat_program(PROMPT, reply) == "from typing import List\nimport math\n\ndef f(x):\n    return x + 1\n"
    assert chat_program("def f():\nimport late\n", "  bare  ") == "\n\nbare\n"


@pytest.mark.parametrize("n, c, k, expected", [(1, 1, 1, 1.0), (10, 3, 1, 0.3), (5, 0, 5, 0.0), (4, 2, 3, 1.0)])
def test_pass_at_k(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one():
    assert pass_at_k(64, 5, 8) == pytest.approx(1 - math.comb(59, 8) / math.comb(64, 8), rel=1e-12)
    with pytest.raises(ValueError, match="pass@3 needs at least 3 samples"):
        pass_at_k(2, 1, 3)


def grade_code(kind, completions, **options):
    task = Task("he", "code", "he.jsonl", options=options)
    item = kind.make_items(task, [ROW], [0], ByteModel(), "harness")[0]
    record = kind.grade(task, item, completions, "harness")
    json.dumps(dict(record.detail))
    return record, kind.summarize(task, [record])


def test_code_runs_every_sample_and_counts_pass_at_k():
    sampled = {"generations_per_sample": 4, "pass_at_k": [1, 2], "seconds": 2}
    right, wrong, early = "    return x + 1\n", "    return x\n", "    import os\n    os._exit(0)\n"
    record, found = grade_code(code, [right, wrong, early, wrong], **sampled)
    assert record.prediction == [True, False, False, False]
    assert record.metrics == {"pass@1": 0.25, "pass@2": 0.5} and record.correct == 0.25
    assert record.detail["samples"] == [0, 1, 2, 1] and found["n_programs"] == 3
    assert found["n_timeouts"] == 0 and "resource limits" in found["isolation"]


def test_code_asks_for_what_the_options_say():
    def settings(**options):
        task = Task("he", "code", "he.jsonl", options=options)
        return code.make_items(task, [ROW], [0], ByteModel(), "harness")[0].generation

    greedy = settings(generations_per_sample=1)
    assert (greedy.n, greedy.temperature, greedy.max_new_tokens) == (1, 0.0, 1024) and "\ndef" in greedy.stops
    sampled = settings(generations_per_sample=20)
    assert (sampled.n, sampled.temperature, sampled.top_p) == (20, 0.2, 0.95)
    with pytest.raises(EvaluationError, match=r"pass@5 needs at least as many samples, got 1"):
        settings(pass_at_k=5)
    with pytest.raises(EvaluationError, match="no room for a prompt"):
        settings(max_new_tokens=4096)


def test_answers_are_shorter_where_the_longest_prompt_leaves_less():
    model, task = ByteModel(), Task("he", "code", "he.jsonl")
    rows = [ROW, ROW | {"prompt": PROMPT + "#" * 50}]
    longest = len(rows[1]["prompt"]) + 1  # and its first token
    model.max_length = longest + 64
    item = code.make_items(task, rows, [0], model, "harness")[0]  # a row of the file that is not asked counts too
    assert item.generation.max_new_tokens == 64 and not item.truncated
    record = code.grade(task, item, ["    return x + 1\n"], "harness")
    assert record.correct == 1.0 and code.summarize(task, [record])["max_new_tokens"] == 64
    model.max_length -= 1
    with pytest.raises(EvaluationError, match=rf"longest prompt has {longest} tokens and leaves 63 of {longest + 63}"):
        code.make_items(task, rows, [0], model, "harness")
    given = Task("he", "code", "he.jsonl", options={"max_new_tokens": 100})
    assert code.make_items(given, rows, [1], model, "harness")[0].truncated


def test_chat_code():
    record, _ = grade_code(chat_code, ["```python\ndef f(x):\n    return x + 1\n```"])
    assert record.correct == 1.0 and record.metrics == {"pass@1": 1.0}
    assert grade_code(chat_code, ["I cannot."])[0].correct == 0.0
    assert "reply is run as Python" in chat_code.check_row(ROW | {"language": "c++"}, Task("t", "chat_code", "t"))


def test_a_language_without_its_compiler_is_unscored(monkeypatch):
    monkeypatch.setattr(code, "toolchain", lambda language: None)
    task, row = Task("he", "code", "he.jsonl"), ROW | {"language": "c++"}
    item = code.make_items(task, [row], [0], ByteModel(), "harness")[0]
    assert item.prompt is None and "g++" in item.unscored
    record = code.grade(task, item, [], "harness")
    assert math.isnan(record.correct) and record.unscored == item.unscored
    assert code.summarize(task, [record])["n_unscored"] == 1


def test_other_languages_end_at_their_closing_brace():
    row = {"prompt": "int f(int x){\n", "test": "int main(){}", "language": "c++"}
    assert code.program(row, "  return 1;\n}\nint g(){}") == "int f(int x){\n  return 1;\n}\nint main(){}\n"
    assert "language must be one of" in code.check_row(ROW | {"language": "rust"}, Task("t", "code", "t"))


def test_hub_rows_become_ours():
    arc = {"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
    rows = {
        "chat_arc_easy": arc,
        "chat_arc_challenge": arc,
        "chat_mmlu": {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 3, "subject": "law"},
        "chat_gsm8k": {"question": "q", "answer": "#### 3"},
        "chat_human_eval": ROW | {"canonical_solution": "    return 1\n"},
        "ifeval": {
            "key": 7,
            "prompt": "p",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"num_words": None, "keywords": None}],
        },
        "mt_bench": {"prompt_id": 81, "category": "math", "prompt": ["a", "b"], "reference": []},
        "alpaca_local": {"instruction": "i", "output": "o", "generator": "g", "dataset": "d"},
    }
    assert rows.keys() == convert.SOURCES.keys()
    from gpt_eval.suites.tables import builtin

    for name, row in rows.items():
        task = builtin()[name].task
        module = __import__(f"gpt_eval.types.{task.type}", fromlist=["check_row"])
        assert module.check_row(convert.SOURCES[name].convert(row), task) is None, name
    assert convert.from_arc(arc)["gold"] == 1 and convert.from_arc(arc)["letters"] == ["1", "2"]
    assert convert.from_flask({"text": "t", "label answer": "l", "metrics": ["Factuality"]})["reference"] == "l"


def test_nanochat_s_order():
    assert convert.shuffled(list(range(8))) == list(np.random.default_rng(42).permutation(8))


def test_chatcore_is_the_plain_mean_of_its_tasks(tmp_path):
    from gpt_eval.aggregate import aggregate

    class Result:
        num_fewshot, rows = 0, 10

        def __init__(self, task, accuracy, partial=False):
            self.task, self.accuracy, self.partial = task, accuracy, partial

    (tmp_path / "x").mkdir()
    tasks, rule = chatcore.suite("chatcore5", Bundle(tmp_path))
    assert [task.baseline for task in tasks] == [0.25, 0.25, 0.25, 0.0, 0.0]
    results = [Result(task.name, 0.5) for task in tasks]
    (whole,) = aggregate(rule, results).values()
    assert whole.score == pytest.approx((3 * (0.25 / 0.75) + 2 * 0.5) / 5) and not whole.partial
    (less,) = aggregate(rule, results[:4]).values()
    assert less.partial and "partial 4/5" in less.label
    assert len(chatcore.suite("chatcore6", Bundle(tmp_path))[0]) == 6
    assert "spellingbee_local" in [task.name for task in chatcore.suite("chatcore6", Bundle(tmp_path))[0]]
    assert {task.type for task in chatcore.suite("judged", Bundle(tmp_path))[0]} == {"judged"}

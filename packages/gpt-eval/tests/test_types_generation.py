"""Free answers: prompts, how long they may be, and what counts as right under each protocol."""

import pytest
from word_model import WordModel

from gpt_eval import EvaluationError, Task
from gpt_eval.types import _answers, generation

ROWS = [
    {"context": f" What is {i} plus {i}? ", "answer": f"{2 * i}", "chain_of_thought": f"Add {i} to {i}. "}
    for i in range(6)
]
PLAIN = [
    {"context": f"Question: capital {i}?\nAnswer:", "answer": "Paris", "aliases": ["City of Light"]} for i in range(4)
]


def task(shots=0, delimiter=" ", **options):
    return Task(
        name="t",
        type="generation",
        file="t.jsonl",
        num_fewshot=shots,
        continuation_delimiter=delimiter,
        options=options,
    )


def item_of(a_task, rows, protocol="foundry", model=None, index=2):
    return generation.make_items(a_task, rows, [index], model or WordModel(), protocol)[0]


def verdict(a_task, rows, text, protocol="foundry"):
    record = generation.grade(a_task, item_of(a_task, rows, protocol), [text], protocol)
    return record.correct, dict(record.metrics)


def test_a_foundry_prompt_shows_reasons_and_ends_without_whitespace():
    model = WordModel()
    a_task = task(1, "\nA: ", cot_delimiter=" #### ")
    item = item_of(a_task, ROWS, model=model)
    shown, question = model.decode(item.prompt).rsplit("\nWhat", 1)
    assert question == " is 2 plus 2?\nA:"
    first = shown[8]
    assert shown == f"What is {first} plus {first}?\nA: Add {first} to {first}. #### {2 * int(first)}"


def test_core_keeps_a_blank_line_and_harness_what_stands_there():
    model = WordModel()
    a_task = task(1, "\nA: ")
    plain = [{name: row[name] for name in ("context", "answer")} for row in ROWS]
    core = model.decode(item_of(a_task, plain, "core", model).prompt)
    assert core.startswith("<|end|>What is") and core.count("\n\n") == 1 and core.endswith("2 plus 2?\nA:")
    harness = model.decode(item_of(a_task, plain, "harness", model).prompt)
    assert harness.endswith("\n\n What is 2 plus 2? \nA:")


def test_an_answer_may_be_as_long_as_the_longest_of_the_file():
    assert item_of(task(), PLAIN).generation.max_new_tokens == 3  # City of Light
    assert item_of(task(), ROWS).generation.max_new_tokens == 6  # "Add", " 5", " to", " 5", ".", " 10"
    assert item_of(task(cot_delimiter="#"), ROWS).generation.max_new_tokens == 7 + 10
    assert item_of(task(max_new_tokens=4), ROWS).generation.max_new_tokens == 4
    assert item_of(task(), PLAIN, "harness").generation.max_new_tokens == 256


def test_a_short_context_leaves_half_of_it_for_answers_and_says_so():
    a_task = task(cot_delimiter="#")
    item = item_of(a_task, ROWS, model=WordModel(max_length=10))
    assert item.generation.max_new_tokens == 5 and item.truncated and len(item.prompt) == 5
    record = generation.grade(a_task, item, ["4"], "foundry")
    assert generation.summarize(a_task, [record]) == {"max_new_tokens": 5}
    with pytest.raises(EvaluationError, match=r"t.jsonl: row 3: no room for a prompt"):
        item_of(task(max_new_tokens=10), ROWS, model=WordModel(max_length=10))


@pytest.mark.parametrize(
    ("text", "correct", "exact"),
    [
        (" paris\nQuestion: x", 1.0, 0.0),
        ("The PARIS!", 1.0, 1.0),
        ("city_of  light", 1.0, 1.0),
        ("Rome, not Paris", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_foundry_takes_an_answer_that_begins_with_a_label(text, correct, exact):
    assert verdict(task(), PLAIN, text) == (correct, {"exact": exact})


def test_foundry_cuts_at_stops_then_reads_behind_the_last_delimiter():
    a_task = task(cot_delimiter="The answer is ", normalize=False, stops=["\n\n", "Question:"])
    assert verdict(a_task, ROWS, " The answer is 9. So The answer is  4.\n\nThe answer is 7") == (1.0, {"exact": 0.0})
    assert verdict(a_task, ROWS, "4") == (1.0, {"exact": 1.0})  # the whole text where there is no delimiter
    assert verdict(a_task, ROWS, "The answer is 40") == (1.0, {"exact": 0.0})  # lenient, as published
    assert verdict(a_task, ROWS, "Question: The answer is 4")[0] == 0.0
    assert verdict(task(stops=["."], normalize=False), PLAIN, "Paris. Rome") == (1.0, {"exact": 1.0})  # no regex


def test_harness_asks_for_equality():
    assert verdict(task(), PLAIN, " paris. ", "harness")[0] == 1.0
    assert verdict(task(), PLAIN, "Paris, France", "harness")[0] == 0.0
    assert verdict(task(), PLAIN, "Paris\n\nQ: Rome?", "harness")[0] == 1.0  # a model may go past the blank line


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("so\n#### 4", 1.0, 1.0),
        ("so\n#### 4.\nthen 9", 1.0, 0.0),
        ("it is $4.", 0.0, 1.0),
        ("#### 40", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
    ],
)
def test_harness_reads_numbers_strictly_and_flexibly(text, strict, flexible):
    assert verdict(task(cot_delimiter=" #### "), ROWS, text, "harness") == (strict, {"flexible": flexible})


def test_numbers_are_read_as_the_harness_reads_them():
    assert _answers.strict_number("#### -1,234.5 #### 7") == "-1,234.5"
    assert _answers.flexible_number("from 3 to $1,000.") == "$1,000."
    assert _answers.same_number("$1,000.", "1000") and not _answers.same_number(None, "None")
    assert _answers.same_number("18.,", "18") and _answers.same_number("18.$", "18")  # one deletion after the other


def test_an_option_that_is_none_is_named():
    assert "stop_words" in generation.check_row(PLAIN[0], task(stop_words=["x"]))


@pytest.mark.parametrize(
    "option",
    [
        {"stops": "Question:"},  # not its letters
        {"stops": [""]},
        {"max_new_tokens": 0},
        {"max_new_tokens": "10"},
        {"normalize": "false"},
        {"cot_delimiter": 5},
    ],
)
def test_an_option_with_a_wrong_value_is_named(option):
    assert next(iter(option)) in str(generation.check_row(PLAIN[0], task(**option)))

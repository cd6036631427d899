"""llm-foundry's formulas worked out a second time, in float64 over whole right-padded sequences, from its description.

GPT_EVAL_BUNDLE=DIR runs them over all files of a bundle, too.
"""

import importlib
import os
import random

import numpy as np
import pytest
from word_model import WordModel

from gpt_eval import Task
from gpt_eval.data.bundle import Bundle
from gpt_eval.types import _answers

PAD = 0
LENGTH = 96


def text_before(task, rows, i, rng, answer_of):
    """P: one generator for the whole file; a set's own order."""
    n = len(rows)
    chosen = set(rng.sample(range(0, n), min(n - 1, task.num_fewshot)))
    if i in chosen:
        chosen.discard(i)
        while len(chosen) < min(n - 1, task.num_fewshot) and len(chosen) < n - 1:
            new = rng.choice(range(0, n))
            if new != i and new not in chosen:
                chosen.add(new)
    text = ""
    for j in chosen:
        text += ("\n" if text else "") + answer_of(rows[j])
    return text


def cross_entropies(model, context, answer, length):
    """Per answer token, from one padded forward of the whole sequence; logits at position p - 1 score token p."""
    context = context[max(0, len(context) + len(answer) - length) :]
    ids = [*context, *answer]
    padded = [*ids, *[PAD] * (length - len(ids))]
    logp = model.log_softmax(padded)
    places = range(len(context), len(ids))
    return [-logp[p - 1, padded[p]] for p in places], all(logp[p - 1].argmax() == padded[p] for p in places)


def worked_out(task, rows, model, length):
    """What llm-foundry's metrics say about every row: the chosen number, or whether the answer is greedy."""
    rng, found, d = random.Random(1234), [], task.continuation_delimiter
    clean = [{k: v.strip() if isinstance(v, str) else v for k, v in row.items()} for row in rows]
    shown = {
        "multiple_choice": lambda row: task.prelimiter + row["query"] + d + row["choices"][row["gold"]],
        "language_modeling": lambda row: task.prelimiter + row["context"] + d + row["continuation"],
        "schema": lambda row: task.prelimiter + row["context_options"][row["gold"]] + d + row["continuation"],
    }[task.type]
    for i, row in enumerate(clean):
        before = text_before(task, clean, i, rng, shown) if task.num_fewshot else ""
        join = "\n" if before else ""
        if task.type == "schema":
            contexts = [join + o + d.rstrip() if before else o for o in row["context_options"]]
            answers = [row["continuation"]] * len(contexts)
        else:
            question = row["query" if task.type == "multiple_choice" else "context"]
            answers = row["choices"] if task.type == "multiple_choice" else [row["continuation"]]
            contexts = [(join + task.prelimiter + question + d).rstrip()] * len(answers)
        scores = []
        for context, answer in zip(contexts, answers, strict=True):
            ids = model.encode(before) + model.encode(context)
            answer = answer if answer.startswith(" ") else " " + answer
            scores.append(cross_entropies(model, ids, model.encode(answer), length))
        means = [float(np.mean(losses)) for losses, _ in scores]
        found.append((means, scores[0][1] if task.type == "language_modeling" else means.index(min(means))))
    return found


def ours(task, rows, model):
    kind = importlib.import_module(f"gpt_eval.types.{task.type}")
    items = kind.make_items(task, rows, range(len(rows)), model, "foundry")
    return [kind.grade(task, item, model.score(item.requests), "foundry") for item in items]


def assert_equal(task, rows, length):
    expected = worked_out(task, rows, WordModel(max_length=length), length)
    for (means, prediction), record in zip(expected, ours(task, rows, WordModel(max_length=length)), strict=True):
        assert record.prediction == prediction, (task.label, record.index)
        np.testing.assert_allclose(np.atleast_1d(record.detail["mean"]), [-mean for mean in means], atol=1e-5)


ROWS = {
    "multiple_choice": [
        {"query": f"Sum {i} of {i * 7 % 5} cats? ", "choices": [f"{i} cats", "no cat at all", "a cat"], "gold": i % 3}
        for i in range(9)
    ],
    "language_modeling": [
        {"context": f" The {w} is on the {w},", "continuation": f"a {w} " if i % 2 else f" {w}"}
        for i, w in enumerate(["cat", "dog", "cow", "hen", "pig", "rat", "bat"])
    ],
    "schema": [
        {"context_options": [f"The {a} saw the {b} as it", f"The {b} saw it"], "continuation": "ran.", "gold": i % 2}
        for i, (a, b) in enumerate([("cat", "dog"), ("cow", "hen"), ("pig", "rat"), ("bat", "ant"), ("fox", "elk")])
    ],
}


@pytest.mark.parametrize("length", [LENGTH, 20])
@pytest.mark.parametrize("delimiter", [" ", "\nAnswer: "])
@pytest.mark.parametrize("shots", [0, 2, 3])
@pytest.mark.parametrize("kind", ROWS)
def test_predictions_and_means_equal_the_formulas(kind, shots, delimiter, length):
    task = Task(name="t", type=kind, file="t.jsonl", num_fewshot=shots, continuation_delimiter=delimiter)
    assert_equal(task, ROWS[kind], length)


@pytest.mark.parametrize("kind", ["multiple_choice", "language_modeling"])
def test_a_prelimiter_stands_before_every_question(kind):
    assert_equal(Task(name="t", type=kind, file="t.jsonl", num_fewshot=2, prelimiter="Q: "), ROWS[kind], LENGTH)


def test_categories_have_shots_of_their_own_and_a_generator_each():
    rows = [{**row, "category": "xy"[i % 2]} for i, row in enumerate(ROWS["multiple_choice"])]
    task = Task(name="t", type="multiple_choice", file="t.jsonl", num_fewshot=2, has_categories=True)
    records = ours(task, rows, WordModel())
    for name in "xy":
        part = [row for row in rows if row["category"] == name]
        plain = Task(name="t", type="multiple_choice", file="t.jsonl", num_fewshot=2)
        expected = worked_out(plain, part, WordModel(), 256)
        assert [r.prediction for r in records if r.category == name] == [prediction for _, prediction in expected]


def test_special_tokens_stand_before_the_shots_only_and_an_end_behind_them_goes():
    class Bracketed(WordModel):
        def encode(self, text, *, specials=False):
            ids = super().encode(text)
            return [1, *ids, self.eot_id] if specials else ids

    kind = importlib.import_module("gpt_eval.types.multiple_choice")
    task = Task(name="t", type="multiple_choice", file="t.jsonl", num_fewshot=2)
    (item,) = kind.make_items(task, ROWS["multiple_choice"], [4], Bracketed(), "foundry")
    context, answer = item.requests[0]
    assert context[0] == 1 and 0 not in context and 1 not in [*context[1:], *answer]


def test_sentencepiece_answers_get_no_space():
    model = WordModel(prefix_space=False)
    kind = importlib.import_module("gpt_eval.types.multiple_choice")
    task = Task(name="t", type="multiple_choice", file="t.jsonl")
    (item,) = kind.make_items(task, ROWS["multiple_choice"], [0], model, "foundry")
    assert model.decode(item.requests[1][1]) == "no cat at all"


def test_the_order_of_shots_is_the_order_of_a_set():
    draw = [199, 112, 29, 1, 23, 149, 8, 171, 177, 21]  # measured on llm-foundry's own sampler
    assert list(set(draw)) == [1, 199, 8, 171, 112, 177, 149, 21, 23, 29]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The_Quick  (brown) fox!", "quick brown fox"),
        ("\u2018A\u2019 an\u00b4the`", ""),
        ("theory, an anthem; a-the", "theory anthem"),
    ],
)
def test_answers_are_normalised_as_triviaqa_does(text, expected):
    assert _answers.normalized(text) == expected


@pytest.mark.skipif("GPT_EVAL_BUNDLE" not in os.environ, reason="GPT_EVAL_BUNDLE names no bundle")
def test_all_files_of_a_bundle():
    bundle = Bundle(os.environ["GPT_EVAL_BUNDLE"])
    for task in bundle.tasks.values():
        if task.type in ROWS and not task.has_categories:
            assert_equal(task, bundle.rows(task)[:6], 160)  # more words than the model knows

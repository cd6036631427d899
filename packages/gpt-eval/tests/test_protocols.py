"""What core and the harness ask and score, worked out by hand; and cutting."""

import math

import numpy as np
import pytest
from word_model import Listed, WordModel

from gpt_eval import EvaluationError, Record, Task
from gpt_eval.protocols import conventions
from gpt_eval.results import summarize
from gpt_eval.truncation import fit, fit_prompt
from gpt_eval.types import language_modeling, multiple_choice, schema

SAY = Task(name="say", type="language_modeling", file="say.jsonl")
WSC = Task(name="wsc", type="schema", file="wsc.jsonl")
OPTIONS = {
    "context_options": ["The cat saw the dog as the cat", "The cat saw the dog as it"],
    "continuation": "ran.",
    "gold": 0,
}


def texts(kind, task, rows, protocol, model=None, index=0):
    """[(context, continuation)] of an item as text."""
    model = model or WordModel()
    (item,) = kind.make_items(task, rows, [index], model, protocol)
    return [(model.decode(context), model.decode(ids)) for context, ids in item.requests]


def test_foundry_schema_has_a_delimiter_only_behind_shots():
    alone = texts(schema, WSC, [OPTIONS], "foundry")
    assert alone == [("The cat saw the dog as the cat", " ran."), ("The cat saw the dog as it", " ran.")]
    dashed = Task(
        name="wsc", type="schema", file="wsc.jsonl", num_fewshot=1, continuation_delimiter=" - ", prelimiter="S: "
    )
    first, _ = texts(schema, dashed, [OPTIONS, {**OPTIONS, "gold": 1}], "foundry")
    assert first == ("S: The cat saw the dog as it - ran.S: \nThe cat saw the dog as the cat -", " ran.")


def test_core_scores_what_all_options_end_with():
    first, second = texts(schema, WSC, [OPTIONS], "core")
    assert first == ("<|end|>The cat saw the dog as the cat", " ran.")
    assert second == ("<|end|>The cat saw the dog as it", " ran.")
    same = {**OPTIONS, "context_options": ["The cat", "The cat"]}
    assert texts(schema, WSC, [same], "core") == [("<|end|>", "The cat ran.")] * 2  # all but the start of text


def test_core_takes_the_start_of_text_where_there_is_one():
    assert texts(schema, WSC, [OPTIONS], "core", WordModel(bos_id=1))[0][0].startswith("<|start|>The")
    with pytest.raises(EvaluationError, match=r"wsc.jsonl: row 1: .*must begin with a start or end of text"):
        texts(schema, WSC, [OPTIONS], "core", WordModel(eot_id=None))


def test_core_language_modeling_trims_contexts_and_keeps_continuations():
    rows = [{"context": " 2 + 2 = ", "continuation": "4 "}, {"context": "1 + 1 =\n", "continuation": " 2"}]
    shots = Task(name="say", type="language_modeling", file="say.jsonl", num_fewshot=1)
    assert texts(language_modeling, SAY, rows, "core") == [("<|end|>2 + 2 =", " 4 ")]
    assert texts(language_modeling, shots, rows, "core") == [("<|end|>1 + 1 =  2\n\n2 + 2 =", " 4 ")]


def test_core_language_modeling_whose_prompt_is_no_prefix_is_wrong_and_says_why():
    class Greedy(WordModel):
        def pieces(self, text):
            return [text]

    (item,) = language_modeling.make_items(SAY, [{"context": "a", "continuation": "b"}], [0], Greedy(), "core")
    record = language_modeling.grade(SAY, item, [], "core")
    assert record.correct == 0.0 and "do not begin those of the prompt" in record.unscored


def test_core_counts_a_span_that_is_cut_away_as_wrong():
    rows = [{"query": "Who?", "choices": ["a b c d e f g h", "i j k l m n o p q r"], "gold": 0}]
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl")
    (item,) = multiple_choice.make_items(task, rows, [0], WordModel(max_length=6), "core")
    record = multiple_choice.grade(task, item, [], "core")
    assert record.correct == 0.0 and record.truncated and "span does not fit" in record.unscored


def test_harness_empty_contexts_begin_with_the_start_of_text():
    rows = [{"context": "", "continuation": "word"}]
    bare = Task(name="say", type="language_modeling", file="say.jsonl", continuation_delimiter="")
    assert texts(language_modeling, bare, rows, "harness") == [("<|end|>", "word")]
    spaced = [{"context": "  ", "continuation": "word"}]
    assert texts(language_modeling, SAY, spaced, "harness") == [("<|end|>", "   word")]
    assert texts(language_modeling, SAY, rows, "foundry") == [("<|end|>", " word")]


def test_harness_adds_the_tokenizers_start_of_text_once():
    model = WordModel(bos_id=1, bos_added=True)
    rows = [{"context": "one", "continuation": "two"}]
    assert texts(language_modeling, SAY, rows, "harness", model) == [("<|start|>one", " two")]


def test_harness_reductions():
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl")
    rows = [{"query": "Who?", "choices": ["\u00e9\u00e9", "abcde fgh", "x"], "gold": 1}]
    model = Listed([-2.0, -1.0], [-4.0, -4.0], [-3.5])
    (item,) = multiple_choice.make_items(task, rows, [0], model, "harness")
    record = multiple_choice.grade(task, item, model.score(item.requests), "harness")
    assert record.prediction == 0 and record.detail["sum"] == [-3.0, -8.0, -3.5]
    # per character -1.5, -0.89, -3.5; per byte -0.75, -0.89, -3.5
    assert record.metrics == {"acc_norm": 1.0, "acc_bytes": 0.0}


def test_harness_says_nothing_of_lengths_for_a_schema():
    (item,) = schema.make_items(WSC, [OPTIONS], [0], WordModel(), "harness")
    record = schema.grade(WSC, item, WordModel().score(item.requests), "harness")
    assert record.metrics == {} and record.prediction in (0, 1)


def test_choices_of_an_item_share_their_context():
    rows = [{"query": "Who came by?", "choices": ["the cat", "the dog"], "gold": 0}]
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl")
    for protocol in ("foundry", "core", "harness"):
        (item,) = multiple_choice.make_items(task, rows, [0], WordModel(), protocol)
        assert item.requests[0][0] is item.requests[1][0]


def test_only_foundry_averages_over_categories():
    rows = [{"context": "one", "continuation": "two", "category": name} for name in ("x", "y", "y", "y")]
    task = Task(name="say", type="language_modeling", file="say.jsonl", has_categories=True)
    found = {}
    for protocol in ("foundry", "core", "harness"):
        items = language_modeling.make_items(task, rows, range(4), WordModel(), protocol)
        records = [
            Record(index=item.index, correct=float(item.index == 0), prediction=0, gold=0, category=item.category)
            for item in items
        ]
        found[protocol] = summarize(task, records, rows=4, data_sha256="", details={}, partial=False)
    assert {name: result.accuracy for name, result in found.items()} == {"foundry": 0.5, "core": 0.25, "harness": 0.25}
    assert list(found["foundry"].categories) == ["x", "y"] and not found["core"].categories


def test_language_modeling_is_all_or_nothing_and_counts_bytes():
    rows = [{"context": "one", "continuation": "two thr\u00e9e"}]
    (item,) = language_modeling.make_items(SAY, rows, [0], WordModel(), "foundry")
    n_bytes = len(" two thr\u00e9e".encode())
    score = Listed([-1.0] * len(item.requests[0][1])).score(item.requests)[0]
    right = language_modeling.grade(SAY, item, [score], "foundry")
    wrong = language_modeling.grade(SAY, item, [score._replace(greedy=np.arange(score.num_tokens) > 0)], "foundry")
    assert (right.correct, wrong.correct, right.detail["bytes"]) == (1.0, 0.0, n_bytes)
    assert wrong.detail["greedy_tokens"] == score.num_tokens - 1
    found = language_modeling.summarize(SAY, [right, wrong])
    assert found["bits_per_byte"] == pytest.approx(score.num_tokens / (math.log(2) * n_bytes))
    assert found["log_perplexity"] == score.num_tokens


def test_scores_that_are_all_impossible_choose_nothing():
    rows = [{"query": "Who?", "choices": ["a", "b"], "gold": 0}]
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl")
    model = Listed([-math.inf], [-math.inf])
    (item,) = multiple_choice.make_items(task, rows, [0], model, "foundry")
    record = multiple_choice.grade(task, item, model.score(item.requests), "foundry")
    assert record.correct == 0.0 and "impossible" in record.unscored


def test_records_are_json(tmp_path):
    import json

    rows = [{"query": "Who?", "choices": ["the cat", "the cat sat", "a dog"], "gold": 0}]
    task = Task(name="pick", type="multiple_choice", file="pick.jsonl")
    for protocol in ("foundry", "core", "harness"):
        (item,) = multiple_choice.make_items(task, rows, [0], WordModel(), protocol)
        record = multiple_choice.grade(task, item, WordModel().score(item.requests), protocol)
        fields = [record.prediction, dict(record.metrics), record.detail, record.gold, record.prompt_sha256]
        assert json.loads(json.dumps(fields, allow_nan=False)) == fields


@pytest.mark.parametrize(("room", "kept"), [(5, [1, 2, 3]), (4, [2, 3]), (3, [3]), (2, [3])])
def test_a_context_keeps_its_end_and_at_least_one_token(room, kept):
    fitted = fit([1, 2, 3], [8, 9], room)
    assert (fitted.context, fitted.continuation, fitted.truncated) == (kept, [8, 9], room < 5)


def test_what_cannot_fit_is_refused():
    with pytest.raises(EvaluationError, match="an answer of 2 tokens, expected at most 1"):
        fit([1], [8, 9], 1)
    assert fit_prompt([1, 2, 3], 2) == ([2, 3], True) and fit_prompt([1], 1) == ([1], False)
    with pytest.raises(EvaluationError, match="no room for a prompt"):
        fit_prompt([1], 0)
    with pytest.raises(EvaluationError, match="protocol is 'helm', expected foundry, core, harness"):
        conventions("helm")

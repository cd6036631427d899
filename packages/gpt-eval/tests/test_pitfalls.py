"""Where evaluations have gone wrong before: pitfalls d to r, found in llm-foundry, nanochat and lm-eval."""

import importlib
import math

import numpy as np
import pytest
from word_model import Listed, Uniform, WordModel

from gpt_eval import EvaluationError, Task
from gpt_eval.data import convert
from gpt_eval.data.bundle import Bundle
from gpt_eval.fewshot import sampler
from gpt_eval.suites.core import core
from gpt_eval.suites.tables import builtin

NOUNS = ["apple", "river", "stone", "cloud", "garden", "window", "letter", "market", "winter", "harbor"]


def run(task, rows, model, protocol="foundry", indices=None):
    """(items, records) of a task."""
    kind = importlib.import_module(f"gpt_eval.types.{task.type}")
    items = kind.make_items(task, rows, range(len(rows)) if indices is None else indices, model, protocol)
    return items, [kind.grade(task, item, model.score(item.requests), protocol) for item in items]


def choice_task(**settings):
    return Task(**{"name": "pick", "type": "multiple_choice", "file": "pick.jsonl", **settings})


def choice_rows(count=40):
    """Answers of different lengths that share words here and there; gold is spread."""
    rows = []
    for i in range(count):
        a, b, c = (NOUNS[(i * k + k) % 10] for k in (1, 3, 7))
        choices = [f"the {a}", f"the {b} near the old {c}", f"{c}", f"a {a} or {b}"]
        rows.append({"query": f"What is in the {a} number {i}? ", "choices": choices, "gold": i % 4})
    return rows


def predictions(records):
    return [record.prediction for record in records]


def test_d_foundry_and_core_ask_differently_and_disagree():
    model, task, rows = WordModel(), choice_task(num_fewshot=3), choice_rows()
    items, foundry = run(task, rows, model)
    core_items, core_records = run(task, rows, model, "core")
    asked, core_asked = (model.decode(each[5].requests[0][0]) for each in (items, core_items))
    assert asked.count("\n") == 3 and core_asked.count("\n\n") == 3
    assert core_asked.startswith("<|end|>") and not asked.startswith("<|end|>")
    assert predictions(foundry) != predictions(core_records)


def test_e_mean_sum_and_length_are_three_benchmarks():
    model, task, rows = WordModel(), choice_task(), choice_rows()
    mean, records = (run(task, rows, model, protocol)[1] for protocol in ("foundry", "harness"))
    assert sum(a != b for a, b in zip(predictions(mean), predictions(records), strict=True)) >= 8
    letters = [{**row, "query": row["query"].strip(), "choices": ["A", "B", "C", "D"]} for row in rows]
    one_token = [predictions(run(task, letters, model, protocol)[1]) for protocol in ("foundry", "harness")]
    assert one_token[0] == one_token[1]  # a mean of one token is its sum
    row = [{"query": "Is it?", "choices": ["no", "yes"], "gold": 1}]
    _, (record,) = run(task, row, Listed([-2.0], [-2.5]), "harness")
    assert (record.correct, record.metrics["acc_norm"], record.metrics["acc_bytes"]) == (0.0, 1.0, 1.0)


def test_f_core_does_not_score_tokens_that_all_choices_begin_with():
    rows = [{"query": "Who came?", "choices": ["the old doctor", "the old sailor came"], "gold": 0}]
    model = WordModel()
    (item,), _ = run(choice_task(), rows, model)
    (core_item,), _ = run(choice_task(), rows, model, "core")
    assert [model.decode(ids) for _, ids in item.requests] == [" the old doctor", " the old sailor came"]
    assert [model.decode(ids) for _, ids in core_item.requests] == [" doctor", " sailor came"]


def test_g_an_empty_span_never_wins_and_is_counted_and_ties_go_to_the_first():
    rows = [{"query": "Who?", "choices": ["the cat", "the cat sat", "the cat ran"], "gold": 1}]
    items, (record,) = run(choice_task(), rows, WordModel(), "core")
    assert items[0].detail["spans"] == (None, 0, 1) and record.prediction in (1, 2)
    assert record.detail["mean"][0] is None and not math.isnan(sum(record.detail["probability"]))
    kind = importlib.import_module("gpt_eval.types.multiple_choice")
    assert kind.summarize(choice_task(), [record])["n_empty_spans"] == 1
    twins = [{"query": "Who?", "choices": ["a dog", "the cat", "the cat"], "gold": 2}]
    _, (tied,) = run(choice_task(), twins, Listed([-9.0, -9.0], [-1.0, -1.0], [-1.0, -1.0]))
    assert (tied.prediction, tied.correct) == (1, 0.0)
    same = [{"query": "Who?", "choices": ["the cat", "the cat"], "gold": 0}]
    _, (nothing,) = run(choice_task(), same, WordModel(), "core")
    assert nothing.correct == 0.0 and "no choice has a token" in nothing.unscored


def test_h_a_file_whose_gold_is_always_0_is_not_won_by_ties_or_nan():
    rows = [{**row, "choices": row["choices"][2:], "gold": 0} for row in choice_rows(12)]
    model = WordModel()
    _, records = run(choice_task(), rows, model)
    reversed_rows = [{**row, "choices": row["choices"][::-1], "gold": 1} for row in rows]
    _, mirrored = run(choice_task(), reversed_rows, model)
    assert predictions(mirrored) == [1 - prediction for prediction in predictions(records)]
    assert 0 < sum(record.correct for record in records) < 12
    with pytest.raises(EvaluationError, match=r"item 0: the model answered with NaN"):
        run(choice_task(), rows, Listed(*[[math.nan, math.nan]] * 24))
    assert predictions(run(choice_task(), rows, Uniform())[1]) == [0] * 12  # ties are the first choice, not chance


def test_i_contexts_that_do_not_fit_are_cut_from_the_left_and_counted():
    model, task, rows = WordModel(max_length=24), choice_task(num_fewshot=3), choice_rows(12)
    for protocol, most in (("foundry", 24), ("core", 24), ("harness", 25)):
        items, records = run(task, rows, model, protocol)
        assert all(record.truncated for record in records)
        lengths = {len(context) + len(ids) for item in items for context, ids in item.requests}
        assert max(lengths) == most
        roomy = WordModel()
        whole, _ = run(task, rows, roomy, protocol)
        kept = [model.decode(context) for item in items for context, _ in item.requests]
        texts = [roomy.decode(context) for item in whole for context, _ in item.requests]
        assert all(text.endswith(end) and text != end for text, end in zip(texts, kept, strict=True))
    assert not any(record.truncated for record in run(task, rows, WordModel())[1])


def test_i_a_remainder_of_nothing_does_not_keep_everything():
    rows = [{"context": "one two three four five", "continuation": "a b c d e f"}]
    task = Task(name="say", type="language_modeling", file="say.jsonl")
    (item,), _ = run(task, rows, WordModel(max_length=6))
    assert [len(part) for part in item.requests[0]] == [1, 6]
    with pytest.raises(EvaluationError, match=r"say.jsonl: row 1: an answer of 6 tokens, expected at most 5"):
        run(task, rows, WordModel(max_length=5))


def test_j_separate_and_joint_encoding_are_both_there():
    """A tokenizer that merges over the border: "New" + "York" is one token only when encoded together."""

    class Merging(WordModel):
        def pieces(self, text):
            before, city, after = text.partition("New York")
            return [*super().pieces(before), *([city] if city else []), *super().pieces(after)]

    rows = [{"query": "He lives in New", "choices": ["York", "Haven"], "gold": 0}]
    model = Merging()
    asked = {p: run(choice_task(), rows, model, p)[0][0].requests for p in ("foundry", "core", "harness")}
    assert [model.decode(ids) for _, ids in asked["foundry"]] == [" York", " Haven"]
    assert [model.decode(ids) for _, ids in asked["core"]] == [" New York", " New Haven"]
    assert [model.decode(ids) for _, ids in asked["harness"]] == ["New York", " Haven"]


def test_k_scores_rounded_to_bfloat16_decide_otherwise():
    def bfloat16(values):
        return (np.array(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)

    close = [[-3.001, -2.0], [-3.0, -2.0]]
    rows = [{"query": "Who?", "choices": ["a cat", "a dog"], "gold": 1}]
    _, (exact,) = run(choice_task(), rows, Listed(*close))
    _, (rounded,) = run(choice_task(), rows, Listed(*map(bfloat16, close)))
    assert (exact.prediction, rounded.prediction) == (1, 0)


def test_l_a_label_that_normalises_to_nothing_matches_nothing_unless_asked_to():
    rows = [{"context": "Question: who?\nAnswer:", "answer": "Bob", "aliases": ["The", "B."]}]
    kind = importlib.import_module("gpt_eval.types.generation")

    def correct(text, **options):
        task = Task(name="t", type="generation", file="t.jsonl", options=options)
        (item,) = kind.make_items(task, rows, [0], WordModel(), "foundry")
        return kind.grade(task, item, [text], "foundry")

    assert correct("anything").correct == 0.0 and correct("anything", compat=True).correct == 1.0
    lenient = correct(" b is the first letter")  # a one-letter alias is a prefix of much
    assert (lenient.correct, lenient.metrics["exact"]) == (1.0, 0.0)


def test_m_whitespace_at_the_end_of_a_query_is_stripped_by_foundry_and_kept_by_core():
    rows = [{"query": "Who is it? ", "choices": ["a cat", "the dog"], "gold": 0}]
    model = WordModel()
    texts = {
        protocol: [model.decode([*a, *b]) for a, b in run(choice_task(), rows, model, protocol)[0][0].requests]
        for protocol in ("foundry", "core", "harness")
    }
    assert texts["foundry"] == ["Who is it? a cat", "Who is it? the dog"]
    assert texts["core"] == ["<|end|>Who is it?  a cat", "<|end|>Who is it?  the dog"]
    assert texts["harness"] == ["Who is it?  a cat", "Who is it?  the dog"]
    (item,), _ = run(choice_task(), rows, model, "harness")
    assert model.decode(item.requests[0][0]) == "Who is it?"  # the space moved to the answer


def test_n_a_space_before_the_answer_is_never_doubled_and_copies_of_the_question_are_no_shots():
    model, task = (
        WordModel(),
        Task(name="say", type="language_modeling", file="say.jsonl", continuation_delimiter="\nA: "),
    )
    rows = [{"context": "2 + 2 =", "continuation": " 4"}, {"context": "Who?", "continuation": "Bob "}]
    items, _ = run(task, rows, model)
    assert [model.decode(item.requests[0][1]) for item in items] == [" 4", " Bob"]
    task = Task(name="sum", type="multiple_choice", file="sum.jsonl")
    assert [
        model.decode(ids)
        for _, ids in run(task, [{"query": "2 + 2 =", "choices": [" 4", "5"], "gold": 0}], model)[0][0].requests
    ] == [" 4", " 5"]
    copies = [{"query": f"q{i // 2}", "choices": ["a", "b"], "gold": 0} for i in range(8)]
    shots = sampler(choice_task(num_fewshot=2), copies, "harness")
    assert all(copies[shot] != copies[row] for row in range(8) for shot in shots(row))
    by_index = sampler(choice_task(num_fewshot=2), copies, "foundry")
    assert any(copies[shot] == copies[row] for row in range(8) for shot in by_index(row))  # foundry's leak, kept


def test_o_a_letter_after_answer_has_one_space_in_all_protocols_and_is_another_token_than_without():
    rows = [{"query": "Choices:\nA. bank\nB. mall\nAnswer:", "choices": ["A", "B"], "gold": 0}]
    model = WordModel()
    for protocol in ("foundry", "core", "harness"):
        (item,), _ = run(choice_task(), rows, model, protocol)
        assert [model.decode(ids) for _, ids in item.requests] == [" A", " B"]
        assert model.decode(item.requests[0][0]).endswith("Answer:")
    assert model.encode("A") != model.encode(" A")


def test_p_hellaswag_is_cleaned_and_boolq_says_no_first():
    row = {
        "activity_label": "Roof shingle removal",
        "ctx_a": "A man is sitting on a roof. [title] Tools [step] take",
        "ctx_b": "he",
        "endings": ["[substeps] is using wrap.", "a  b", "c", "d"],
        "label": "3",
    }
    (made,) = convert.hellaswag(row)
    assert made["query"] == "Roof shingle removal: A man is sitting on a roof.. Tools take He"
    assert made["choices"] == [" is using wrap.", "a b", "c", "d"] and made["gold"] == 3
    (made,) = convert.boolq({"passage": "P.", "question": "is it", "label": 1})
    assert made == {"query": "Passage: P.\nQuestion: is it?", "choices": ["no", "yes"], "gold": 1}


@pytest.mark.parametrize("protocol", ["foundry", "core", "harness"])
def test_q_a_part_of_the_rows_is_asked_exactly_as_in_the_whole(protocol):
    model, task, rows = WordModel(), choice_task(num_fewshot=4), choice_rows(20)
    whole, _ = run(task, rows, model, protocol)
    some, _ = run(task, rows, model, protocol, [17, 2, 5])
    assert [item.requests for item in some] == [whole[i].requests for i in (17, 2, 5)]
    head, _ = run(task, rows[:10], model, protocol, [2, 5])
    assert head[0].requests != whole[2].requests  # another file: its shots, and so its numbers, are others


def test_q_the_length_of_answers_comes_from_the_whole_file():
    kind = importlib.import_module("gpt_eval.types.generation")
    rows = [{"context": f"q{i}", "answer": "word " * (i + 1)} for i in range(6)]
    task = Task(name="t", type="generation", file="t.jsonl")
    (item,) = kind.make_items(task, rows, [0], WordModel(), "foundry")
    assert item.generation.max_new_tokens == 7  # six words, and the space behind them


def test_r_baselines_are_those_of_the_bundle_and_results_say_whose(tmp_path):
    """Numbers of upstream repositories are documentation: none is shipped but baselines, and they are named."""
    _, shipped = core(Bundle(tmp_path))
    assert "eval_meta_data_v1" in shipped.source
    (tmp_path / "eval_meta_data.csv").write_text("Eval Task,Random baseline\ncommonsense_qa,40.4\n")
    tasks, rule = core(Bundle(tmp_path))
    assert "sha256" in rule.source
    assert {task.name: task.baseline for task in tasks}["commonsense_qa"] == pytest.approx(0.404)
    assert {task.name: task.baseline for task in tasks}["boolq"] == pytest.approx(0.62)
    assert builtin()["boolq"].task.baseline == 0.5  # the gauntlet's is another one

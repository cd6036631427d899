"""The published tables, and how names become tasks."""

import json
from types import SimpleNamespace

import pytest

from gpt_eval import BundleError, EvaluationError, Task
from gpt_eval.data.bundle import Bundle
from gpt_eval.runner import load_type
from gpt_eval.suites.core import core
from gpt_eval.suites.gauntlet import gauntlet, versions
from gpt_eval.suites.select import own_protocol, published_rows, select
from gpt_eval.suites.tables import builtin


@pytest.fixture
def bundle(tmp_path):
    """Three of the gauntlet's files, one of them under another path."""
    rows = {
        "world_knowledge/arc_easy.jsonl": {"query": "q", "choices": ["a", "b", "c", "d"], "gold": 0},
        "commonsense_reasoning/copa.jsonl": {"query": "q", "choices": ["a", "b"], "gold": 0},
        "elsewhere/swag.jsonl": {"query": "q", "choices": ["a", "b", "c", "d"], "gold": 0},
    }
    for name, row in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    (tmp_path / "index.yaml").write_text(
        "tasks:\n"
        "  - {name: hellaswag, file: elsewhere/swag.jsonl, type: mc, shots: 1, base: 0.25}\n"
        "  - {name: mine, file: elsewhere/swag.jsonl, type: mc}\n"
    )
    return Bundle(tmp_path)


def test_the_newest_gauntlet_is_v03_and_has_the_published_members():
    tasks, rule = gauntlet("gauntlet-v0.3")
    sizes = {category.name: len(category.benchmarks) for category in rule.categories}
    assert sizes == {
        "world_knowledge": 6,
        "commonsense_reasoning": 7,
        "language_understanding": 4,
        "symbolic_problem_solving": 8,
        "reading_comprehension": 6,
    }
    assert len(tasks) == 31 + 3 and set(rule.averages["core_average"]) == set(sizes)
    by_label = {task.label: task for task in tasks}
    assert by_label["gsm8k/0-shot"].file.endswith("gsm8k_prepended_8shot.jsonl")
    assert by_label["gsm8k/0-shot"].options["stops"] == ["\n\n", "Question:"]
    assert by_label["svamp/5-shot"].prelimiter == "Question: " and by_label["svamp/5-shot"].baseline == 0
    assert by_label["jeopardy/3-shot"].has_categories and by_label["mmlu/5-shot"].has_categories
    assert by_label["arc_challenge/25-shot"].category == ""  # run, in no average
    assert by_label["piqa/0-shot"].continuation_delimiter == "\nAnswer: "


def test_older_gauntlets_have_their_own_settings():
    assert versions() == ["gauntlet-v0.1", "gauntlet-v0.2", "gauntlet-v0.3"]
    tasks = {task.label: task for task in gauntlet("gauntlet-v0.2")[0]}
    gsm8k = tasks["gsm8k/8-shot"]
    assert gsm8k.file.endswith("/gsm8k.jsonl") and gsm8k.prelimiter == "Q: "
    assert dict(gsm8k.options) == {"cot_delimiter": " #### "}
    tasks, rule = gauntlet("gauntlet-v0.1")
    assert "safety" in {category.name for category in rule.categories}
    assert "safety" not in rule.averages["core_average"]
    assert {task.name: task.num_fewshot for task in tasks}["openbook_qa"] == 0


def test_core_has_22_tasks_with_their_percentages(tmp_path):
    tasks, rule = core(Bundle(tmp_path))
    assert len(tasks) == 22 and len({task.label for task in tasks}) == 22
    by_name = {task.name: task for task in tasks}
    assert by_name["bigbench_language_identification"].baseline == pytest.approx(0.091)
    assert by_name["hellaswag_zeroshot"].file == by_name["hellaswag"].file
    assert not by_name["jeopardy"].has_categories and by_name["jeopardy"].num_fewshot == 10
    assert not rule.categories[0].complete


def test_a_table_of_baselines_that_is_none_is_named(tmp_path):
    (tmp_path / "eval_meta_data.csv").write_text("Eval Task,Random baseline\ncopa,half\n")
    with pytest.raises(BundleError, match=r"eval_meta_data.csv:2: expected"):
        core(Bundle(tmp_path))
    (tmp_path / "eval_meta_data.csv").write_text("Eval Task,Random baseline\ncopa,100\n")
    with pytest.raises(BundleError, match=r"a baseline of 100.0 percent"):
        core(Bundle(tmp_path))
    (tmp_path / "eval_meta_data.csv").write_bytes(b"Eval Task,Random baseline\ncop\xe9,40\n")
    with pytest.raises(BundleError, match=r"eval_meta_data.csv: byte 29 is not UTF-8"):
        core(Bundle(tmp_path))
    (tmp_path / "eval_meta_data.csv").write_text("")
    with pytest.raises(BundleError, match=r"eval_meta_data.csv: no rows"):
        core(Bundle(tmp_path))


def test_baselines_that_the_table_has_not_are_said_to_be_ours(tmp_path):
    (tmp_path / "eval_meta_data.csv").write_text("Eval Task,Random baseline\ncopa,40\n")
    tasks, rule = core(Bundle(tmp_path))
    assert {task.name: task.baseline for task in tasks}["copa"] == 0.4
    assert "core.yaml of gpt-eval for hellaswag_zeroshot, " in rule.source and "copa" not in rule.source


def test_every_built_in_task_has_a_type_that_exists():
    assert len(builtin()) > 60
    for entry in builtin().values():
        load_type(entry.task)


def test_a_suite_runs_with_what_there_is(bundle):
    chosen = select("gauntlet", bundle)
    assert [task.label for task in chosen.tasks] == [
        "arc_easy/3-shot",
        "copa/0-shot",
        "hellaswag/0-shot",
        "hellaswag/10-shot",
    ]
    assert "mmlu/5-shot" in chosen.missing and chosen.tasks[2].file == "elsewhere/swag.jsonl"
    assert "hellaswag_zeroshot/0-shot" in {task.label for task in select("core", bundle).tasks}  # by its twin's file


def test_averages_are_json_and_name_their_baselines(bundle):
    scores = [SimpleNamespace(task="copa", num_fewshot=0, accuracy=0.75, rows=100, partial=False)]
    found = select("core", bundle).averages(scores, "core")["CORE"]
    assert json.loads(json.dumps(found)) == found
    assert found["score"] == 0.5 and found["label"] == "CORE (partial 1/22)" and "core.yaml" in found["baselines"]
    assert (
        select("core", bundle).averages(scores, "foundry")["CORE"]["label"] == "CORE (partial 1/22), protocol foundry"
    )
    assert select("arc_easy", bundle).averages(scores, "core") == {}


def test_a_suite_is_asked_by_its_own_conventions_and_a_longer_file_is_another_one(bundle):
    assert own_protocol("core") == own_protocol("sums, core") == "core"
    assert own_protocol("gauntlet") == own_protocol("core_of_my_own") == "foundry"
    chosen = select("core", bundle)
    copa = next(task for task in chosen.tasks if task.name == "copa")
    assert [chosen.is_partial(copa, rows) for rows in (99, 100, 101)] == [True, False, True]


def test_single_tasks_come_from_the_index_first(bundle):
    chosen = select("hellaswag, mine,copa/4-shot", bundle)
    assert [task.label for task in chosen.tasks] == ["hellaswag/1-shot", "mine/0-shot", "copa/4-shot"]
    assert not chosen.missing and select([Task("x", "schema", "x.jsonl")], bundle).tasks[0].name == "x"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("arc_eazy", r"unknown task or suite 'arc_eazy'; did you mean arc_easy"),
        ("gauntlet-v3", r"did you mean gauntlet-v0.3"),
        ("zzzzzz", r"suites are gauntlet, "),
        ("mmlu", r"mmlu: no world_knowledge/mmlu.jsonl in .*apps/evaluate fetch mmlu"),
        ("copa,copa", r"copa/0-shot: asked for twice"),
        ("copa/few", r"expected NAME or NAME/K-shot"),
        ("core,gauntlet", r"names 2 suites"),
        (" , ", r"no task in"),
        ([], r"no tasks given"),
    ],
)
def test_names_that_cannot_be_are_named(bundle, what, message):
    with pytest.raises(EvaluationError, match=message):
        select(what, bundle)


def test_a_suite_without_data_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"no data of its 22 tasks"):
        select("core", Bundle(tmp_path))


def test_a_head_of_a_published_file_is_partial(bundle):
    chosen = select("copa,mine", bundle)
    assert [chosen.is_partial(task, 99) for task in chosen.tasks] == [True, False]
    assert not chosen.is_partial(chosen.tasks[0], 100)
    assert published_rows(builtin()["jeopardy"].task) == 2117

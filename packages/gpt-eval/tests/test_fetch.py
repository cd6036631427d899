"""Fetching writes a bundle that can be read, and fails clearly; no network is used."""

import sys
import types

import pytest
import yaml

from gpt_eval import BundleError, EvaluationError
from gpt_eval.data.bundle import Bundle
from gpt_eval.data.fetch import fetch, hub_rows
from gpt_eval.suites.select import select
from gpt_eval.suites.tables import builtin

COPA = {"premise": "It rained.", "choice1": "I got wet.", "choice2": "I ran.", "question": "effect", "label": 0}
PIQA = {"goal": "How?", "sol1": "so", "sol2": "thus", "label": 1}


def hub(dataset, config, split):
    asked.append((dataset, config, split))
    return {"aps/super_glue": [COPA, COPA], "baber/piqa": [PIQA]}[dataset]


asked: list[tuple] = []


def test_a_fetched_bundle_is_read_with_its_digest(tmp_path):
    asked.clear()
    found = list(fetch(["copa", "piqa"], tmp_path / "new", hub))
    assert [(path.name, rows) for path, rows in found] == [("copa.jsonl", 2), ("piqa.jsonl", 1)]
    assert asked == [("aps/super_glue", "copa", "validation"), ("baber/piqa", None, "validation")]
    bundle = Bundle(tmp_path / "new")
    assert bundle.tasks["piqa"] == builtin()["piqa"].task
    (row,) = bundle.rows(bundle.tasks["piqa"])
    assert row["choices"] == ["so", "thus"] and bundle.entries["copa"].sha256 == bundle.sha256(bundle.tasks["copa"])
    assert "baber/piqa" in bundle.entries["piqa"].people["source"]
    assert select("copa,piqa", bundle).tasks[0].label == "copa/0-shot"


def test_other_entries_stay_and_an_old_one_is_replaced(tmp_path):
    (tmp_path / "index.yaml").write_text(
        'tasks:\n  - {name: mine, file: mine.jsonl, type: lm, notes: "my own"}\n'
        f"  - {{name: copa, file: commonsense_reasoning/copa.jsonl, type: mc, sha256: {'f' * 64}}}\n"
    )
    list(fetch(["copa"], tmp_path, hub))
    entries = yaml.safe_load((tmp_path / "index.yaml").read_text())["tasks"]
    assert [entry["name"] for entry in entries] == ["mine", "copa"] and entries[0]["notes"] == "my own"
    assert len(Bundle(tmp_path).rows(builtin()["copa"].task)) == 2
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_task_of_the_same_file_stays_without_its_digest(tmp_path):
    (tmp_path / "index.yaml").write_text(
        "tasks:\n  - {name: copa_5, file: commonsense_reasoning/copa.jsonl, type: mc, shots: 1, rows: 9, "
        f"sha256: {'f' * 64}}}\n"
    )
    list(fetch(["copa"], tmp_path, hub))
    bundle = Bundle(tmp_path)
    assert bundle.tasks["copa_5"].num_fewshot == 1 and len(bundle.rows(bundle.tasks["copa_5"])) == 2


def test_what_no_hub_has_is_named_before_anything_is_fetched(tmp_path):
    asked.clear()
    with pytest.raises(EvaluationError, match=r"jeopardy: no hub has it; .*mosaicml/llm-foundry"):
        list(fetch(["jeopardy"], tmp_path, hub))
    with pytest.raises(EvaluationError, match=r"unknown task 'coppa'; did you mean copa"):
        list(fetch(["copa", "coppa"], tmp_path, hub))
    assert not asked
    with pytest.raises(EvaluationError, match=r"fetched the others, but not jeopardy"):
        list(fetch(["copa", "jeopardy"], tmp_path, hub))
    assert Bundle(tmp_path).has("commonsense_reasoning/copa.jsonl")


def test_a_suite_is_all_its_files(tmp_path):
    names = []

    def note(dataset, config, split):
        names.append(config)
        raise EvaluationError("stop")

    with pytest.raises(EvaluationError, match="stop"):
        list(fetch(["core"], tmp_path, note))
    assert names == [None]  # hellaswag comes first, once


def test_a_data_set_that_has_changed_is_named(tmp_path):
    with pytest.raises(EvaluationError, match=r"baber/piqa: row 1 is not as expected \(KeyError: 'goal'; it has aim\)"):
        list(fetch(["piqa"], tmp_path, lambda *_: [PIQA, {"aim": 1}]))
    with pytest.raises(EvaluationError, match=r"baber/piqa: no rows"):
        list(fetch(["piqa"], tmp_path, lambda *_: []))


def test_without_network_and_without_the_library(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach the hub\ntrace")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=unreachable))
    with pytest.raises(EvaluationError, match=r"baber/piqa \(validation\) cannot be fetched: .*reach the hub; is"):
        hub_rows("baber/piqa", None, "validation")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EvaluationError, match=r'pip install "gpt-eval\[hub\]"'):
        hub_rows("baber/piqa", None, "validation")


def test_an_entry_of_ones_own_names_its_data_set_and_columns(tmp_path):
    (tmp_path / "index.yaml").write_text(
        "tasks:\n  - {name: mine, file: mine.jsonl, type: mc, shots: 2, base: 0.5, hub: {dataset: me/sums, split: test,"
        " columns: {query: [aim, how], choices: [ways], gold: [best]}}}\n"
    )
    rows = [{"aim": "Go", "how": 3, "ways": ["on", "off"], "best": 1}]
    for _ in range(2):  # the entry stays one that can be fetched
        assert [count for _, count in fetch(["mine"], tmp_path, lambda *_: rows)] == [1]
    bundle = Bundle(tmp_path)
    assert bundle.rows(bundle.tasks["mine"]) == [{"query": "Go 3", "choices": ["on", "off"], "gold": 1}]
    assert bundle.tasks["mine"].label == "mine/2-shot" and bundle.entries["mine"].sha256


def test_nothing_is_written_outside_the_bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "index.yaml").write_text(
        "tasks:\n  - {name: mine, file: ../away.jsonl, type: lm,"
        " hub: {dataset: me/sums, split: test, columns: {context: [q], continuation: [a]}}}\n"
    )
    with pytest.raises(BundleError, match="expected a path inside the bundle"):
        list(fetch(["mine"], folder, lambda *_: [{"q": "x", "a": "y"}]))
    assert not (tmp_path / "away.jsonl").exists()


def test_spelling_questions_are_made_not_fetched(tmp_path):
    ((_, rows),) = fetch(["spellingbee_local"], tmp_path, hub)
    assert rows == 256 and len(Bundle(tmp_path).rows(builtin()["spellingbee_local"].task)) == 256


def test_an_index_that_is_none_is_kept(tmp_path):
    (tmp_path / "index.yaml").write_text("just text\n")
    with pytest.raises(BundleError, match="expected `tasks:`"):
        list(fetch(["copa"], tmp_path, hub))
    assert [path.name for path in tmp_path.rglob("*")] == ["index.yaml"]

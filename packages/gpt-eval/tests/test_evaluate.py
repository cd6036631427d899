"""evaluate(): the same numbers in whatever pieces, what is kept on disk, and refusals before anything is asked."""

import json
import threading
from types import SimpleNamespace

import pytest

from gpt_eval import runner
from gpt_eval.errors import (
    BundleError,
    CodeExecutionRefused,
    EvaluationError,
    JudgeRequired,
    UnsupportedByBackend,
)
from gpt_eval.evaluate import evaluate, prepare
from gpt_eval.fewshot import core_order
from gpt_eval.task import Record, Task


def parse(path):
    """Strict: NaN and Infinity are errors, as they are to other readers."""

    def refuse(name):
        raise AssertionError(f"{name} in {path}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_scores_are_means_of_the_records(hash_model, bundle_folder):
    results = evaluate(hash_model(), "pick,say", bundle_folder)
    pick = results["pick"]
    grades = [record.correct for record in results.records["pick/2-shot"]]
    assert [record.index for record in results.records["pick/2-shot"]] == list(range(23))
    assert pick.accuracy == sum(grades) / 23 and 0 < pick.accuracy < 1
    mean = pick.accuracy
    assert pick.stderr == pytest.approx((sum((grade - mean) ** 2 for grade in grades) / 22 / 23) ** 0.5)
    assert pick.centered == pytest.approx((pick.accuracy - 0.25) / 0.75)
    assert pick.majority_rate == 6 / 23  # golds 0, 1, 2 come six times
    assert (pick.n, pick.rows, pick.partial) == (23, 23, False)
    assert results["say/0-shot"].majority_rate is None
    with pytest.raises(KeyError, match=r"pick/2-shot, say/0-shot"):
        results["nothing"]


def test_under_core_a_limit_takes_rows_from_all_over_the_file(hash_model, bundle_folder):
    everything = evaluate(hash_model(), "pick", bundle_folder, protocol="core")
    some = evaluate(hash_model(), "pick", bundle_folder, protocol="core", limit=5)
    rows = everything.tasks[0].rows
    wanted = sorted(core_order(rows)[:5])
    label = everything.tasks[0].label
    assert [record.index for record in some.records[label]] == wanted != list(range(5))
    assert some.records[label] == [everything.records[label][i] for i in wanted]


def test_a_limit_takes_the_first_rows_and_changes_none_of_them(hash_model, bundle_folder):
    whole = evaluate(hash_model(), "pick", bundle_folder)
    some = evaluate(hash_model(), "pick", bundle_folder, limit=7)
    assert some.records["pick/2-shot"] == whole.records["pick/2-shot"][:7]
    assert some["pick"].partial and some["pick"].n == 7 and some["pick"].rows == 23


def test_chunks_and_remade_items_change_nothing(hash_model, bundle_folder, monkeypatch):
    whole = evaluate(hash_model(), "pick,say", bundle_folder)
    monkeypatch.setattr(runner, "CHUNK_ITEMS", 3)
    monkeypatch.setattr(runner, "HELD_TOKENS", 0)
    model = hash_model()
    pieces = evaluate(model, "pick,say", bundle_folder)
    assert len(model.calls) == 1 + 8 + 4  # the probe, 23 and 11 items by three
    assert pieces.records == whole.records


@pytest.fixture
def on_ranks():
    def run(world_size, action):
        """action(ranks) in as many threads; what each returned."""
        barrier, values, found = threading.Barrier(world_size), [None] * world_size, [None] * world_size

        def one(rank):
            def gather(value):
                values[rank] = value
                barrier.wait(timeout=20)
                everyone = list(values)
                barrier.wait(timeout=20)
                return everyone

            try:
                found[rank] = action(SimpleNamespace(rank=rank, world_size=world_size, gather=gather))
            except Exception as error:
                found[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run


@pytest.mark.parametrize("world_size", [2, 4])
def test_results_and_files_do_not_depend_on_the_number_of_ranks(
    hash_model, bundle_folder, tmp_path, on_ranks, world_size
):
    alone = evaluate(hash_model(), "pick,say", bundle_folder, output=tmp_path / "alone")
    models = [hash_model() for _ in range(world_size)]
    shared = on_ranks(
        world_size,
        lambda ranks: evaluate(models[ranks.rank], "pick,say", bundle_folder, output=tmp_path / "shared", ranks=ranks),
    )
    for results in shared:
        assert results.tasks == alone.tasks and results.records == alone.records
    assert (tmp_path / "shared/samples.jsonl").read_bytes() == (tmp_path / "alone/samples.jsonl").read_bytes()
    asked = [sum(model.calls[1:]) for model in models]
    assert max(asked) - min(asked) <= 5  # 34 items of 4 and 1 requests


def test_an_item_that_is_too_long_on_one_rank_stops_all_of_them(hash_model, bundle_folder, on_ranks):
    rows = (bundle_folder / "say.jsonl").read_text().splitlines()
    rows[1] = json.dumps({"context": "x", "continuation": "y" * 5000})
    (bundle_folder / "say.jsonl").write_text("\n".join(rows))
    found = on_ranks(2, lambda ranks: evaluate(hash_model(), "say", bundle_folder, ranks=ranks))
    assert all(isinstance(error, EvaluationError) for error in found), found
    assert str(found[0]) == str(found[1])
    assert "say.jsonl" in str(found[0]) and "2" in str(found[0])


def test_results_json_is_strict_and_has_all_that_makes_the_score(hash_model, bundle_folder, tmp_path):
    evaluate(hash_model(), "pick", bundle_folder, protocol="harness", limit=4, output=tmp_path / "run")
    (results,) = [json.loads((tmp_path / "run/results.json").read_text(), parse_constant=pytest.fail)]
    (task,) = results["tasks"]
    assert (results["protocol"], results["model"]["tokenizer_hash"], results["limit"]) == ("harness", "bytes", 4)
    assert task["num_fewshot"] == 2 and task["n"] == 4 and len(task["data_sha256"]) == 64
    assert task.keys() >= {"accuracy", "stderr", "baseline", "centered", "majority_rate", "n_truncated"}
    assert "gpt-eval" in results["versions"]
    header, *lines = parse(tmp_path / "run/samples.jsonl")
    assert header["evaluation"]["protocol"] == "harness"
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert all(len(line["prompt_sha256"]) == 64 and len(line["detail"]["sum"]) == 4 for line in lines)


# Interrupted


@pytest.fixture
def interrupted(hash_model, bundle_folder, tmp_path, monkeypatch):
    """A folder in which two of eight chunks of `pick` are done."""
    monkeypatch.setattr(runner, "CHUNK_ITEMS", 3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(hash_model(fail_after=3), "pick,say", bundle_folder, output=tmp_path / "run")
    return tmp_path / "run"


def test_an_interrupted_evaluation_goes_on_and_ends_as_if_it_had_not_been(
    interrupted, hash_model, bundle_folder, tmp_path
):
    assert len(parse(interrupted / "samples.jsonl")) == 1 + 6 and not (interrupted / "results.json").exists()
    model = hash_model()
    results = evaluate(model, "pick,say", bundle_folder, output=interrupted)
    assert sum(model.calls[1:]) == (23 - 6) * 4 + 11  # nothing twice
    whole = evaluate(hash_model(), "pick,say", bundle_folder, output=tmp_path / "whole")
    assert results.tasks == whole.tasks
    assert (interrupted / "samples.jsonl").read_bytes() == (tmp_path / "whole/samples.jsonl").read_bytes()


def test_a_finished_evaluation_asks_nothing_and_a_larger_limit_only_the_rest(hash_model, bundle_folder, tmp_path):
    for limit, asked in ((5, 20), (5, 0), (9, 16), (None, 56)):
        model = hash_model()
        results = evaluate(model, "pick", bundle_folder, limit=limit, output=tmp_path / "run")
        assert sum(model.calls[1:]) == asked
    assert results.records == evaluate(hash_model(), "pick", bundle_folder).records


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        ({"seed": 1}, {}, "its weights have changed"),
        ({}, {"protocol": "core"}, "protocol was 'foundry', is now 'core'"),
        ({}, {"seed": 3}, "seed was 0, is now 3"),
    ],
)
def test_another_question_is_not_continued(interrupted, hash_model, bundle_folder, model, arguments, message):
    before = (interrupted / "samples.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match=message):
        evaluate(hash_model(**model), "pick,say", bundle_folder, output=interrupted, **arguments)
    assert (interrupted / "samples.jsonl").read_bytes() == before


def test_changed_data_are_not_continued_but_may_begin_anew(interrupted, hash_model, bundle_folder):
    path = bundle_folder / "pick.jsonl"
    path.write_text(path.read_text().replace("Question 22", "Question 99"))
    with pytest.raises(EvaluationError, match="pick/2-shot has other settings or data"):
        evaluate(hash_model(), "pick,say", bundle_folder, output=interrupted)
    model = hash_model()
    evaluate(model, "pick,say", bundle_folder, output=interrupted, resume=False)
    assert sum(model.calls[1:]) == 23 * 4 + 11


def test_work_on_tasks_that_are_no_longer_asked_for_is_not_dropped(interrupted, hash_model, bundle_folder):
    before = (interrupted / "samples.jsonl").read_bytes()
    with pytest.raises(EvaluationError, match="it has 6 items of pick/2-shot, which this list of tasks would drop"):
        evaluate(hash_model(), "say", bundle_folder, output=interrupted)
    assert (interrupted / "samples.jsonl").read_bytes() == before


def test_another_dtype_is_another_question_and_results_name_it(hash_model, bundle_folder, tmp_path):
    model = hash_model()
    model.dtype = "float32"
    assert evaluate(model, "say", bundle_folder, output=tmp_path).model["dtype"] == "float32"
    model.dtype = "bfloat16"
    with pytest.raises(EvaluationError, match=r"is now \{'dtype': 'bfloat16'\}"):
        evaluate(model, "say", bundle_folder, output=tmp_path)


def test_results_of_before_do_not_stay_beside_samples_of_now(hash_model, bundle_folder, tmp_path):
    evaluate(hash_model(), "pick", bundle_folder, output=tmp_path)
    (tmp_path / "report.md").write_text("of before")
    with pytest.raises(KeyboardInterrupt):
        evaluate(hash_model(seed=1, fail_after=1), "pick", bundle_folder, output=tmp_path, resume=False)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["samples.jsonl"]


def test_an_output_that_cannot_be_written_stops_all_ranks(hash_model, bundle_folder, tmp_path, on_ranks):
    (tmp_path / "file").touch()
    found = on_ranks(
        2, lambda ranks: evaluate(hash_model(), "say", bundle_folder, output=tmp_path / "file", ranks=ranks)
    )
    assert isinstance(found[0], OSError) and isinstance(found[1], EvaluationError), found


# Refused before anything is asked


class Silent:
    """A model that must not be asked."""

    name, max_length, eot_id, bos_id, prefix_space, tokenizer_hash = "silent", 100, 0, None, True, "x"
    supports = frozenset({"generate"})

    def encode(self, text, *, specials=False):
        return list(text.encode())

    def score(self, requests):
        raise AssertionError("asked")

    generate = score


@pytest.fixture
def own_type(monkeypatch):
    """A task type of one's own, as a module."""
    import sys
    from types import ModuleType

    module = ModuleType("own_types.kind")
    module.NEEDS = frozenset({"generate"})
    module.check_row = lambda row, task: None
    module.make_items = lambda task, rows, indices, model, protocol: []
    module.grade = lambda task, item, outputs, protocol: Record(item.index, 1.0, None, None)
    monkeypatch.setitem(sys.modules, "own_types.kind", module)
    monkeypatch.setitem(sys.modules, "own_types", ModuleType("own_types"))
    return module


OWN = Task("mine", "own_types.kind", "say.jsonl")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tasks": "pick"}, UnsupportedByBackend, "pick needs a model that can score; silent .* can only generate"),
        ({"tasks": "pikc"}, EvaluationError, "pick"),
        ({"protocol": "other"}, EvaluationError, "protocol is 'other'; choose foundry, core, harness"),
        ({"limit": 0}, EvaluationError, "limit must be at least 1"),
        ({"bundle": "/nowhere"}, BundleError, "/nowhere"),
        ({"tasks": [Task("x", "no_such_type", "say.jsonl")]}, EvaluationError, "no task type 'no_such_type'.*schema"),
        ({"tasks": [Task("x", "json", "say.jsonl")]}, EvaluationError, "no task type 'json'"),
        ({"tasks": [Task("x", "os.path", "say.jsonl")]}, EvaluationError, "os.path is no task type, it lacks NEEDS"),
        ({"tasks": []}, EvaluationError, "no tasks"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(bundle_folder, arguments, error, message):
    settings = {"tasks": "pick", "bundle": bundle_folder} | arguments
    with pytest.raises(error, match=message):
        evaluate(Silent(), **settings)


def test_programs_are_run_only_if_allowed(bundle_folder, own_type):
    own_type.EXECUTES_CODE = True
    with pytest.raises(CodeExecutionRefused, match=r"mine runs programs .*--allow-code-execution"):
        prepare(Silent(), [OWN], bundle_folder)


def test_a_judge_is_required_and_is_not_the_model_itself(bundle_folder, own_type):
    own_type.NEEDS_JUDGE = True
    with pytest.raises(JudgeRequired, match="mine needs --judge-url and --judge-model; nothing was run"):
        prepare(Silent(), [OWN], bundle_folder)
    with pytest.raises(JudgeRequired, match="silent would judge its own answers"):
        prepare(Silent(), [OWN], bundle_folder, judge=SimpleNamespace(id="silent"))


@pytest.mark.parametrize(("name", "error"), [("mt_bench", JudgeRequired), ("chat_human_eval", CodeExecutionRefused)])
def test_a_judge_and_a_permission_come_before_missing_data(bundle_folder, name, error):
    model = Silent()
    model.supports = frozenset({"generate", "chat"})
    with pytest.raises(error, match=f"{name} .*nothing was run"):
        prepare(model, f"{name}", bundle_folder)


def test_a_type_of_ones_own_may_hold_the_conversation_and_summarize(bundle_folder, own_type, hash_model):
    from gpt_eval.task import Item

    own_type.NEEDS_JUDGE = True
    own_type.make_items = lambda task, rows, indices, model, protocol: [Item(i, prompt=[65]) for i in indices]
    own_type.answer = lambda task, items, model: [[f"{task.options['judge'].id} {item.index}"] for item in items]
    own_type.grade = lambda task, item, outputs, protocol: Record(item.index, float("nan"), outputs[0], None)
    own_type.summarize = lambda task, records: {"accuracy": None, "replies": [record.prediction for record in records]}
    results = evaluate(hash_model(), [OWN], bundle_folder, judge=SimpleNamespace(id="wise"), limit=2)
    assert results["mine"].details["replies"] == ["wise 0", "wise 1"]
    assert results["mine"].accuracy is None and results["mine"].n == 0
    assert results.notes["judge"] == "wise" and results["mine"].settings["options"] == {"judge": "wise"}

"""CORE while apps/pretrain trains: on one process, on two with sharded weights, and what stops a run at its start."""

import json

import pytest

import exactly
from gpt_data import prepare
from gpt_eval.fewshot import core_order

BYTES = "--data.module_kwargs.dataset=bytes"

ROWS = [
    {"query": f"{word} beta", "choices": ["gamma", "delta"], "gold": i % 2}
    for i, word in enumerate(["alpha", "eta"] * 4)
]


@pytest.fixture(scope="module")
def bundle(shared_workbench):
    folder = shared_workbench.folder / "bundle/commonsense_reasoning"
    folder.mkdir(parents=True)
    (folder / "copa.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    data = shared_workbench.folder / "data/bytes"  # CORE's prompts begin with a token that characters have not
    prepare("text", [shared_workbench.folder / "text.txt"], tokenizer="byte", out=data, quiet=True)
    return folder.parent


def settings(bundle, **options):
    wanted = {"eval.core_every": 3, "eval.bundle": bundle, "eval.limit": 5} | options
    return [BYTES, *(f"--{name}={value}" for name, value in wanted.items())]


def scores(run_dir):
    """{step: metrics of CORE}."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if "core/tasks" in line}


def samples(run_dir, step):
    folder = run_dir / f"eval/core_step_{step:06d}"
    header, *lines = map(json.loads, (folder / "samples.jsonl").read_text().splitlines())
    assert header["evaluation"]["protocol"] == "core"
    return lines


def test_core_is_scored_every_so_many_steps_and_called_partial(shared_workbench, bundle):
    assert shared_workbench.pretrain("--run_name=one", "--max_steps=4", *settings(bundle)) is None
    run_dir = shared_workbench.out / "one"
    found = scores(run_dir)
    assert found.keys() == {3, 4}
    right = sum(line["correct"] for line in samples(run_dir, 3))
    assert found[3]["core/partial"] == found[3]["core/copa/0-shot"] == pytest.approx((right / 5 - 0.5) / 0.5)
    assert "core/score" not in found[3]
    assert json.loads((run_dir / "summaries.json").read_text())["core/partial"] == found[4]["core/partial"]


def test_training_goes_on_as_if_nothing_had_been_asked(shared_workbench, bundle):
    assert shared_workbench.pretrain("--run_name=asked", "--max_steps=4", *settings(bundle)) is None
    assert shared_workbench.pretrain("--run_name=unasked", "--max_steps=4", BYTES) is None
    weights = [
        (shared_workbench.out / f"{name}/checkpoints/step_000004/model.safetensors").read_bytes()
        for name in ("asked", "unasked")
    ]
    assert weights[0] == weights[1]


def test_two_ranks_with_sharded_weights_share_the_items(shared_workbench, bundle, fork_ranks):
    arguments = ["--run_name=two", "--max_steps=3", "--strategy=fsdp", *settings(bundle)]
    ended = fork_ranks(shared_workbench.folder, 2, exactly.pretrain, shared_workbench, *arguments)
    assert [rank.code for rank in ended] == [0, 0], ended
    run_dir = shared_workbench.out / "two"
    assert [line["index"] for line in samples(run_dir, 3)] == sorted(core_order(len(ROWS))[:5])
    assert scores(run_dir).keys() == {3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval.bundle": "null"}, "need eval.bundle"),
        ({"eval.bundle": "no/such/folder"}, "no/such/folder: no such folder"),
        ({"dataset": "tiny"}, "must begin with a start or end of text"),
        ({"eval.chatcore_every": 2}, "chat_arc_easy needs"),
    ],
)
def test_what_cannot_be_scored_stops_the_run_before_its_first_step(shared_workbench, bundle, options, message):
    error = shared_workbench.pretrain("--run_name=refused", *settings(bundle, **options))
    assert message in str(error)
    path = shared_workbench.out / "refused/metrics.jsonl"
    assert not path.exists() or '"train/loss"' not in path.read_text()

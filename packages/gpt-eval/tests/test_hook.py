"""Benchmarks while a model trains: when they run, what they report, and that they stop a run that could not finish."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from gpt_eval.errors import EvaluationError
from gpt_eval.hook import Benchmarks


@pytest.fixture
def core_bundle(tmp_path):
    """Two of CORE's tasks, a few rows of each."""
    folder = tmp_path / "bundle/commonsense_reasoning"
    folder.mkdir(parents=True)
    copa = [
        {"query": f"It rained {i} days, so", "choices": ["it was wet", "it was dry"], "gold": i % 2} for i in range(6)
    ]
    (folder / "copa.jsonl").write_text("\n".join(map(json.dumps, copa)))
    book = [{"query": f"{i} plus", "choices": ["one", "two", "three", "four"], "gold": i % 4} for i in range(6)]
    (folder / "openbook_qa.jsonl").write_text("\n".join(map(json.dumps, book)))
    return tmp_path / "bundle"


@pytest.fixture
def train(core_bundle, hash_model, tmp_path):
    """Drives the hook through steps, as a training loop does; returns what it reported and what it lent."""

    def run(steps, *, core_every=2, limit=4, status="completed", chatcore_every=0):
        logged, lent = [], []

        @contextmanager
        def lend():
            lent.append(True)
            yield

        sinks = SimpleNamespace(log=lambda step, metrics: logged.append((step, metrics)), info=logged.append)
        settings = SimpleNamespace(
            allow_code_execution=False,
            core_every=core_every,
            chatcore_every=chatcore_every,
            bundle=str(core_bundle),
            limit=limit,
        )
        hook = Benchmarks(
            settings,
            tokenizer=None,
            sinks=sinks,
            ranks=SimpleNamespace(rank=0, world_size=1),
            run_dir=tmp_path / "a-run",
            wrap=lambda model, tokenizer, name, **speech: model,
            lend=lend,
        )
        state = SimpleNamespace(model=hash_model(), step=0, status="running")
        hook.on_start(state)
        for _ in range(steps):
            state.step += 1
            hook.on_gradients(state)
            hook.on_step(state)
        state.status = status
        hook.on_end(state)
        return logged, lent, hook

    return run


def test_it_scores_every_so_many_steps_and_at_the_end(train, tmp_path):
    logged, lent, _ = train(5)
    steps = [entry[0] for entry in logged if isinstance(entry, tuple)]
    assert steps == [2, 4, 5]
    assert len(lent) == 1 + 3  # the check before the first step, and each score
    folder = tmp_path / "a-run/eval/core_step_000004"
    assert {path.name for path in folder.iterdir()} == {"results.json", "samples.jsonl"}


def test_an_interrupted_run_is_not_scored_again(train):
    logged, _, _ = train(3, status="interrupted")
    assert [entry[0] for entry in logged if isinstance(entry, tuple)] == [2]


def test_a_part_of_core_is_never_reported_as_its_score(train):
    logged, _, _ = train(2)
    (metrics,) = (entry[1] for entry in logged if isinstance(entry, tuple))
    assert "core/score" not in metrics and metrics["core/tasks"] == 2
    tasks = [metrics["core/copa/0-shot"], metrics["core/openbook_qa/0-shot"]]
    assert metrics["core/partial"] == pytest.approx(sum(tasks) / 2)
    assert any("core partial" in text for text in logged if isinstance(text, str))


def test_nothing_asked_for_is_nothing_done(train):
    logged, lent, _ = train(4, core_every=0)
    assert logged == [] and lent == []


def test_what_cannot_be_run_stops_before_the_first_step(train):
    with pytest.raises(EvaluationError, match="chat_arc_easy needs a model that can chat_score"):
        train(1, chatcore_every=1)

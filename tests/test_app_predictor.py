"""apps/predictor as a user runs it: train, ask, evaluate, resume; and everything that can be asked wrongly."""

import json
import runpy
import shutil
import sys
from fractions import Fraction

import pytest
import torch
from safetensors.torch import load_file

from gpt_core.checkpoint import list_checkpoints, save_model
from gpt_core.config import load_config
from gpt_core.models import gpt
from gpt_core.training import plan_batches
from gpt_core.training.recipe import SCHEMA
from gpt_dag.evaluation import Item, write_items
from gpt_dag.tokens import WordTokenizer
from gpt_data.tokenizers import ByteTokenizer
from workspace import ROOT

APP = str(ROOT / "apps/predictor")
TINY = [
    *("--n_layer=2", "--n_embd=16", "--training.context_length=64", "--batch_size=8", "--max_steps=6"),
    *("--data.module_kwargs.held_out=16", "--data.module_kwargs.max_ops=2", "--model.module_kwargs.dilations=[1,2]"),
    *("--warmup_iters=2", "--save_every=3", "--eval_every=3", "--log_every=3", "--device=cpu"),
]
EACH = 5  # expressions of each number of operations in the table at the end, in place of 100
RUN = f"""
import os, runpy, sys
os.chdir(folder)
sys.argv = argv
sys.path.insert(0, argv[0])
import scoring
scoring.FINAL_EACH = {EACH}
runpy.run_path(argv[0], run_name="__main__")
"""


@pytest.fixture
def app(monkeypatch, capsys):
    """Runs the app in a folder; its exit status and what it printed."""
    monkeypatch.syspath_prepend(APP)
    monkeypatch.setattr("scoring.FINAL_EACH", EACH)

    def run(folder, *arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [APP, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(APP, run_name="__main__")
        return end.value.code, capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with out/first, a finished run, made by a process of its own."""
    return tmp_path_factory.mktemp("predictor")


@pytest.fixture(scope="module")
def first(folder, fork):
    done = fork(folder, exec, RUN, {"argv": [APP, "--run_name=first", *TINY], "folder": folder})
    assert done.code == 0, done.stderr
    return done.stdout


def test_training_ends_with_a_table_by_number_of_operations_and_a_plot(first, folder):
    assert "CPU minutes from the start" in first
    assert "1 operation " in first and "8 operations" in first and "left to right" in first
    report = folder / "out/first/report"
    assert (report / "accuracy.png").read_bytes()[:4] == b"\x89PNG"
    figures = json.loads((report / "accuracy.json").read_text())
    assert figures["n"] == 8 * EACH and 0 <= figures["exact"] <= 1
    assert [p.name for p in list_checkpoints(folder / "out/first")] == ["step_000003", "step_000006"]


def test_resuming_is_bit_exact(first, folder, app):
    second = folder / "out/second"
    shutil.copytree(folder / "out/first", second, symlinks=True)
    shutil.rmtree(second / "checkpoints/step_000006")
    (second / "checkpoints/latest").unlink()
    (second / "checkpoints/best").unlink(missing_ok=True)
    code, out = app(folder, "--run_name=second", *TINY, "--init_from=resume")
    assert not code and "as in the checkpoint, not" not in out
    weights = [
        load_file(folder / f"out/{run}/checkpoints/step_000006/model.safetensors") for run in ("first", "second")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    shutil.rmtree(second)


def test_evaluate_scores_a_file_and_ends_with_json(first, folder, app):
    items = [Item("2 + 3", Fraction(5), "symbols", 1), Item("two times nine", Fraction(18), "cardinal", 5)]
    write_items(folder / "items.jsonl", items)
    code, out = app(folder, "--evaluate", "items.jsonl", "--checkpoint", "latest")
    assert not code
    figures = json.loads(out.splitlines()[-1])
    assert figures["n"] == 2
    assert {"exact", "exact_1_4", "exact_5_8", "invalid"} <= figures.keys()
    assert "symbols" in out and "cardinal" in out
    code, out = app(folder, "--evaluate", "percent", "--number", "4", "--checkpoint", "first")
    assert not code and json.loads(out.splitlines()[-1])["n"] == 4


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("two plus banana", "unknown word 'banana'", 9),
        ("", "there is no expression", 0),
        ("   ", "there is no expression", 0),
        ("2 + €3", "unknown character '€'", 4),
        ("1,2345 + 1", "commas must stand before every three digits", 1),
    ],
)
def test_what_cannot_be_read_is_no_answer_with_its_place(first, folder, app, text, problem, place):
    code, out = app(folder, "--ask", text)
    assert code == 1
    assert out.startswith(f"no answer: {problem}")
    assert out.splitlines()[-1].endswith(f"^ character {place}")


def test_a_network_that_misreads_gives_no_answer(first, folder, app):
    """After six steps it knows next to nothing; the reader beside it sees to it that nothing wrong is said."""
    wrong = 0
    for text in ("2 + 3", "nine minus five", "(4 - 1) * 2", "7"):
        code, out = app(folder, "--ask", text)
        assert (code == 1 and out.startswith("no answer: ")) or (code == 0 and "= " in out)
        wrong += code
    assert wrong, "six steps do not make a reader"


def test_word_problems_are_answered_by_a_gpt(folder, app):
    sizes = {"vocab_size": ByteTokenizer().vocab_size, "context_length": 64, "n_layer": 1, "n_head": 2, "n_embd": 16}
    checkpoint = folder / "gpts/a-gpt/checkpoints/step_000003"
    checkpoint.mkdir(parents=True)
    recipe = {"module": "gpt_core.models.gpt", "module_kwargs": sizes}
    save_model(checkpoint, gpt(**sizes), {"step": 3, "model": recipe})
    ByteTokenizer().save(folder / "gpts/a-gpt/tokenizer")
    rows = [{"Body": "He has 2.", "Question": "How many?", "Answer": 2.0}] * 3
    (folder / "svamp.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("--math", "svamp=svamp.jsonl", "gsm8k", "--checkpoint", "gpts", "--max_examples", "2")
    code, out = app(folder, *arguments, "--max_new_tokens", "4")
    assert not code
    assert "gsm8k: skipped, no file was given" in out
    figures = json.loads(out.splitlines()[-1])
    assert figures["math_eval_svamp_errors"] == 0 and 0 <= figures["math_eval_svamp"] <= 1
    assert "gsm9k" in mistake(app, folder, "--math", "gsm9k=svamp.jsonl", "--checkpoint", "gpts")


def test_the_large_configurations_take_the_seeds_batches():
    sizes = {"predictor-1.6m": (16, 16384), "predictor-8000": (1, 8000)}
    for name, (micro_steps, sequences) in sizes.items():
        config = load_config([name], schema=SCHEMA, config_dirs=[ROOT / "apps/predictor/configs"])
        plan = plan_batches(config.section("training"), 1)
        assert (plan.micro_steps, plan.sequences) == (micro_steps, sequences)
        model = config.component("model").build(vocab_size=WordTokenizer.vocab_size, context_length=256)
        assert 1_550_000 <= sum(p.numel() for p in model.parameters()) <= 1_700_000


def test_help_tells_of_asking_and_evaluating(folder, app):
    code, out = app(folder, "--help")
    assert not code
    assert '--ask "' in out and "--evaluate FILE.jsonl" in out and "predictor-1.6m" in out


def mistake(app, folder, *arguments):
    code, out = app(folder, *arguments)
    assert isinstance(code, str) and code.startswith("error: ") and "\n" not in code, code
    assert out == ""
    return code


def test_mistakes_are_one_line(first, folder, app, tmp_path):
    missing = mistake(app, folder, "--ask", "1 + 1", "--checkpoint", "nowhere")
    assert "no predictor 'nowhere'" in missing and "first" in missing
    assert "none" in mistake(app, tmp_path, "--ask", "1 + 1") and "uv run apps/predictor" in mistake(
        app, tmp_path, "--ask=1"
    )
    assert "step_000003, step_000006" in mistake(app, folder, "--ask", "1 + 1", "--checkpoint", "17")
    assert "no_such.jsonl" in mistake(app, folder, "--evaluate", "no_such.jsonl")
    (folder / "bad.jsonl").write_text('{"english": "one"}\n')
    assert "bad.jsonl, line 1: no text under fraction" in mistake(app, folder, "--evaluate", "bad.jsonl")
    wrong = ("--run_name=x", "--model.module_kwargs.mixer=window", "--n_head=3")
    assert "n_embd must be n_head heads of an even width, got n_embd=64, n_head=3" in mistake(app, folder, *wrong)
    apart = mistake(app, folder, "--run_name=x", "--data.module_kwargs.max_digits=3")
    assert "model.module_kwargs.max_digits is 4 and data.module_kwargs.max_digits is 3" in apart


def test_runs_of_other_models_are_not_taken_for_predictors(first, folder, app):
    other = folder / "out/gpt"
    shutil.copytree(folder / "out/first", other, symlinks=True)
    for meta in other.glob("checkpoints/step_*/meta.json"):
        content = json.loads(meta.read_text())
        content["model"]["module"] = "gpt_core.models.gpt"
        meta.write_text(json.dumps(content))
    code, out = app(folder, "--ask", "two plus banana")
    assert code == 1 and "unknown word" in out, "the newest run is another's; the newest predictor was asked"
    shutil.rmtree(other)

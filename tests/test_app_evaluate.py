"""apps/evaluate as a user runs it: our runs on one and two ranks, a model of transformers, comparison, refusals."""

import json
import runpy
import sys

import pytest
import torch

from gpt_core.checkpoint import save_model
from gpt_core.models import gpt
from gpt_data.tokenizers import ByteTokenizer
from workspace import ROOT

SIZES = {
    "vocab_size": ByteTokenizer().vocab_size,
    "context_length": 256,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "init_std": 0.3,
}
APP = str(ROOT / "apps/evaluate")
RUN = "import os, runpy, sys; os.chdir(folder); sys.argv = argv; runpy.run_path(argv[0], run_name='__main__')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs below out/, as pretraining leaves them, and a bundle of two tasks."""
    root = tmp_path_factory.mktemp("evaluate")
    for seed, name in enumerate(("a-run", "b-run")):
        checkpoint = root / f"out/{name}/checkpoints/step_000003"
        checkpoint.mkdir(parents=True)
        torch.manual_seed(seed)
        recipe = {"module": "gpt_core.models.gpt", "module_kwargs": SIZES}
        save_model(checkpoint, gpt(**SIZES), {"step": 3, "tokens": 9, "val_loss": 1.0, "model": recipe})
        ByteTokenizer().save(root / f"out/{name}/tokenizer")
    bundle = root / "bundle"
    bundle.mkdir()
    pick = [
        {"query": f"{i} + {i}", "choices": [f"{2 * i}", f"{3 * i + 1} or so", "none of all these"], "gold": i % 3}
        for i in range(30)
    ]
    say = [{"context": f"{i}, {i + 1},", "continuation": f"{i + 2}"} for i in range(7)]
    for name, rows in (("pick", pick), ("say", say)):
        (bundle / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (bundle / "index.yaml").write_text(
        "tasks:\n  - {name: pick, file: pick.jsonl, type: mc, shots: 1, base: 0.3333, category: choosing}\n"
        "  - {name: say, file: say.jsonl, type: lm, category: saying}\n"
    )
    return root


@pytest.fixture
def app(folder, monkeypatch, capsys):
    """app(*arguments) -> (exit status, stdout, stderr) in this process."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [APP, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(APP, run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:  # the app's own modules: another app may have some of the same name
            for name in ("arguments", "scoring", "targets", "comparing", "fetching"):
                sys.modules.pop(name, None)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def two_ranks(folder, tmp_path_factory, fork_ranks):
    """What two processes make of a run: (how they ended, the results' folder)."""
    argv = [APP, "out/a-run", "--suite", "pick,say", "--bundle", "bundle", "--output", "two", "--device", "cpu"]
    ended = fork_ranks(tmp_path_factory.mktemp("ranks"), 2, exec, RUN, {"argv": argv, "folder": folder})
    return ended, folder / "two"


def test_a_run_is_scored_and_everything_is_written(app, folder):
    code, out, err = app("out/a-run", "--suite", "pick,say", "--bundle", "bundle", "--output", "one", "--device", "cpu")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith("a-run/step_000003   protocol foundry   suite pick,say")
    assert lines[3].split()[:3] == ["pick", "1", "30"] and lines[4].split()[:3] == ["say", "0", "7"]
    assert {path.name for path in (folder / "one").iterdir()} == {
        "bars.png",
        "report.md",
        "results.json",
        "samples.jsonl",
    }
    assert "left" in err and "wrote one/report.md" in err
    again = app("out/a-run", "--suite", "pick,say", "--bundle", "bundle", "--output", "one", "--device", "cpu")
    assert again[1] == out  # read from samples.jsonl


def test_two_processes_find_what_one_finds(two_ranks, app, folder):
    ended, shared = two_ranks
    assert [rank.code for rank in ended] == [0, 0], ended
    app("out/a-run", "--suite", "pick,say", "--bundle", "bundle", "--output", "alone", "--device", "cpu")
    alone, both = (json.loads((path / "results.json").read_text())["tasks"] for path in (folder / "alone", shared))
    for mine, theirs in zip(alone, both, strict=True):
        assert mine["accuracy"] == theirs["accuracy"] and mine["n"] == theirs["n"]
    samples = [(path / "samples.jsonl").read_text().splitlines()[1:] for path in (folder / "alone", shared)]
    for mine, theirs in zip(*(map(json.loads, lines) for lines in samples), strict=True):
        assert (mine["task"], mine["index"], mine["prediction"]) == (
            theirs["task"],
            theirs["index"],
            theirs["prediction"],
        )
        assert mine["prompt_sha256"] == theirs["prompt_sha256"]
    assert ended[0].stdout and not ended[1].stdout


def test_a_model_of_transformers_by_its_folder(app, folder):
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, "<end>"])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder / "hf")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=257, n_positions=128, n_embd=16, n_layer=1, n_head=2, bos_token_id=256, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(folder / "hf")
    code, out, err = app("hf:hf", "--suite", "pick", "--bundle", "bundle", "--limit", 5, "--device", "cpu", "--quiet")
    assert code == 0, err
    assert out.splitlines()[3].split()[:3] == ["pick", "1", "5"] and "partial" in out
    assert (folder / "out/evaluate/hf/pick-foundry/results.json").exists()


def test_results_are_compared_on_the_same_items(app, folder):
    for name in "ab":
        arguments = ["--suite", "pick,say", "--bundle", "bundle", "--output", f"of-{name}", "--device", "cpu"]
        assert app(f"out/{name}-run", *arguments, "--no-plot", "--quiet")[0] == 0
    code, out, err = app("compare", "of-a", "of-b")
    assert code == 0, err
    assert "first   a-run/step_000003 (of-a)" in out and "mean of 2 (centered)" in out
    assert out == app("compare", "of-a", "of-b")[1]
    app(
        "out/b-run",
        "--suite",
        "pick",
        "--bundle",
        "bundle",
        "--output",
        "other",
        "--protocol",
        "core",
        "--device",
        "cpu",
    )
    assert "different benchmarks" in app("compare", "of-a", "other")[0]


def test_an_interrupt_keeps_what_is_done_and_says_so(app, folder, monkeypatch):
    from gpt_eval import runner
    from gpt_eval.types import language_modeling

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "CHUNK_ITEMS", 10)
    arguments = ["out/a-run", "--suite", "pick,say", "--bundle", "bundle", "--output", "cut", "--device", "cpu"]
    with monkeypatch.context() as patch:
        patch.setattr(language_modeling, "grade", interrupted)
        code, out, err = app(*arguments, "--no-plot")
    assert code == 130 and out == "" and "cut/samples.jsonl keeps what is done" in err
    assert len((folder / "cut/samples.jsonl").read_text().splitlines()) == 1 + 30
    assert app(*arguments, "--no-plot")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out/a-run", "--suite", "pikc", "--bundle", "bundle"], "did you mean pick"),
        (["out/a-run", "--suite", "core", "--bundle", "bundle"], "no data"),
        (["out/a-run", "--bundle", "no/such/bundle"], "no/such/bundle: no such folder"),
        (["out/c-run", "--suite", "pick", "--bundle", "bundle"], "c-run"),
        (["hf:no/such/model", "--suite", "pick", "--bundle", "bundle"], "no/such/model"),
        (["http://127.0.0.1:9/v1", "--suite", "pick", "--bundle", "bundle"], "give --model NAME"),
        (["out/a-run", "--bundle", "bundle", "--max-length", "64"], "--max-length means nothing to a run"),
        (
            ["http://127.0.0.1:9/v1", "--bundle", "bundle", "--model", "m", "--dtype", "float16"],
            "--dtype means nothing",
        ),
        (["hf:hf", "--bundle", "bundle", "--trust", "pkg"], "--trust means nothing to a model of transformers"),
        (["compare", "bundle", "bundle"], "results.json: no such file"),
    ],
)
def test_mistakes_are_one_line(app, arguments, message):
    code, out, _ = app(*arguments)
    assert str(code).startswith("error: ") and "\n" not in code and message in code
    assert out == ""


def test_another_question_does_not_continue_a_folder(app):
    arguments = ["--suite", "say", "--bundle", "bundle", "--output", "mixed", "--device", "cpu", "--no-plot"]
    assert app("out/a-run", *arguments)[0] == 0
    assert "model was" in app("out/b-run", *arguments)[0]
    assert app("out/b-run", *arguments, "--no-resume")[0] == 0

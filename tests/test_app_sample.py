"""apps/sample as a user runs it."""

import pickle
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
    "context_length": 64,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "init_std": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with out/a-run, as pretraining leaves it."""
    root = tmp_path_factory.mktemp("sample")
    checkpoint = root / "out/a-run/checkpoints/step_000003"
    checkpoint.mkdir(parents=True)
    torch.manual_seed(0)
    recipe = {"module": "gpt_core.models.gpt", "module_kwargs": SIZES}
    save_model(checkpoint, gpt(**SIZES), {"step": 3, "tokens": 9, "val_loss": 1.0, "model": recipe})
    ByteTokenizer().save(root / "out/a-run/tokenizer")
    return root


RUN = "import os, runpy, sys; os.chdir(folder); sys.argv = argv; runpy.run_path(argv[0], run_name='__main__')"


def test_a_process_shows_the_newest_run_and_says_its_speed_apart(folder, tmp_path, fork):
    argv = [str(ROOT / "apps/sample"), "--prompt", "def ", "--max_new_tokens", "30"]
    done = fork(tmp_path, exec, RUN, {"argv": argv, "folder": folder})
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("def ")
    assert "tokens/s on" in done.stderr


@pytest.fixture
def error(folder, tmp_path, monkeypatch, capsys):
    """What the app says when a user makes a mistake: one line, and nothing that looks like a sample."""
    monkeypatch.chdir(folder)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["apps/sample", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "apps/sample"), run_name="__main__")
        assert capsys.readouterr().out == ""
        assert end.value.code.startswith("error: ") and "\n" not in end.value.code
        return end.value.code

    return run


def test_without_the_run_it_says_what_exists(error):
    said = error("out/b-run")
    assert "no checkpoint 'latest' in out/b-run" in said and "a-run" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--max_new_tokens", "0"], "max_new_tokens"),
        (["--device", "cuda:99"], "CUDA devices"),
        (["--device", "gpu"], "use auto, cpu, cuda"),
        (["--prompt", "FILE:."], "Is a directory"),
        (["--prompt", "FILE:missing.txt"], "missing.txt"),
        (["--tokenizer", "missing"], "missing"),
        (["--checkpoint", "7"], "step_000003"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_printed(error, arguments, message):
    assert message in error("out/a-run", *arguments)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_nanogpt_checkpoint(error, tmp_path, content):
    (tmp_path / "ckpt.pt").write_bytes(content)
    assert "is not a nanoGPT checkpoint, or damaged" in error(tmp_path / "ckpt.pt")


@pytest.fixture
def main(capsys):
    """The app in this process: arguments to (stdout, stderr)."""
    app = runpy.run_path(str(ROOT / "apps/sample/__main__.py"))["main"]

    def run(*arguments):
        app([str(argument) for argument in arguments])
        return tuple(capsys.readouterr())

    return run


def test_a_seed_reproduces(folder, main):
    texts = [main(folder / "out", "--max_new_tokens", "30", "--seed", seed)[0] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_batch_of_prompts_and_samples_comes_with_rules_between(folder, main):
    start = folder / "start.txt"
    start.write_text("class ", encoding="utf-8")
    text, said = main(
        folder / "out/a-run", "--prompt", f"FILE:{start}", "--prompt", "def ", "--num_samples=2", "--max_new_tokens=80"
    )
    texts = text.split("\n" + "-" * 80 + "\n")
    assert [text[:4] for text in texts] == ["clas", "clas", "def ", "def "]
    assert texts[0] != texts[1]
    assert said.count("context of 64 tokens is full") == 1


def test_a_nanogpt_checkpoint_with_its_characters(tmp_path, main):
    torch.manual_seed(0)
    shapes = {"wte.weight": (9, 16), "wpe.weight": (32, 16), "ln_f.weight": (16,)}
    layer = {"ln_1": (16,), "attn.c_attn": (48, 16), "attn.c_proj": (16, 16)}
    layer |= {"ln_2": (16,), "mlp.c_fc": (64, 16), "mlp.c_proj": (16, 64)}
    shapes |= {f"h.0.{name}.weight": shape for name, shape in layer.items()}
    weights = {f"_orig_mod.transformer.{name}": torch.randn(shape) / 4 for name, shape in shapes.items()}
    weights["_orig_mod.lm_head.weight"] = weights["_orig_mod.transformer.wte.weight"]
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 32, "bias": False, "vocab_size": 9, "dropout": 0.0}
    torch.save({"model": weights, "model_args": sizes}, tmp_path / "ckpt.pt")
    stoi = {c: i for i, c in enumerate("\nabcdefgh")}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": 9, "stoi": stoi, "itos": dict(enumerate(stoi))}))

    text, _ = main(tmp_path / "ckpt.pt", "--tokenizer", tmp_path / "meta.pkl", "--max_new_tokens", "20")
    assert len(text) == 1 + 20 + 1, "newline, 20 characters, newline"
    assert set(text) <= set(stoi)
    with pytest.raises(ValueError, match="--tokenizer"):
        main(tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match="'Z'"):
        main(tmp_path / "ckpt.pt", "--tokenizer", tmp_path / "meta.pkl", "--prompt", "Z")

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"stoi": print}))
    with pytest.raises(ValueError, match=r"no nanoGPT table of characters.*GLOBAL, which no table needs"):
        main(tmp_path / "ckpt.pt", "--tokenizer", tmp_path / "bad.pkl")

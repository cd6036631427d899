"""What docs/guides says runs: its commands, made small, in order, and its programs as they stand."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from gpt_core.config import load_config
from gpt_core.training.recipe import SCHEMA
from gpt_data import prepare
from workspace import ROOT

GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [*GUIDES, ROOT / "docs/depth.md", ROOT / "docs/stability.md"]
"""All whose commands and programs are run."""
CONFIGS = ROOT / "apps/pretrain/configs"
TINY = ["--block_size=16", "--batch_size=2", "--eval_iters=1", "--max_new_tokens=2", "--threads=1", "--dtype=float32"]
SIZES = ["--n_layer=1", "--n_head=2", "--n_embd=16", "--max_iters=50"]
DEPTHS = {"depth", "depth-desk", "gpt2-small"}
"""Configurations of another data set, on GPUs, with a batch in tokens."""
AT_THE_DESK = ["--dataset=stdlib", "--compile=off", "--device=cpu", "--total-batch-size=32"]
BY_DEPTH = ["--depth=1", "--aspect-ratio=16", "--head-dim=16", "--total-batch-size=32", "--target-flops=1e7"]
APP = """
import os, runpy, sys
os.chdir(folder)
os.environ.pop("DATA_ROOT", None)
sys.argv = argv
runpy.run_path(argv[0], run_name="__main__")
"""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; those of a list are indented."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: Path) -> list[list[str]]:
    return [shlex.split(line, comments=True) for block in blocks(page, "bash") for line in block.splitlines()]


def small(words: list[str]) -> list[str]:
    """A command of apps/pretrain with the least of everything; what is given last wins."""
    sizes = BY_DEPTH if {"depth", "depth-desk", "--target-flops"} & set(words) else SIZES
    desk = AT_THE_DESK if DEPTHS & set(words) else []
    return [*words, *TINY, *sizes, *desk, *(["--max_iters=55"] if "--init_from=resume" in words else [])]


def desk(folder: Path) -> None:
    """data/stdlib, small, and texts of one's own in notes/."""
    text = "A small text, which stands for all of Python's library.\n" * 40
    for name in ("stdlib", "notes"):
        (folder / name).mkdir()
        for number in range(3):
            (folder / name / f"{number}.txt").write_text(f"{number}, {name}: {text}")
    prepare("text", [folder / "stdlib"], tokenizer="byte", val_one_in=2, out=folder / "data/stdlib", quiet=True)


def test_every_guide_is_short_is_in_the_index_and_shows_something_that_runs():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert len(GUIDES) >= 13
    for page in GUIDES:
        assert len(page.read_text(encoding="utf-8").splitlines()) < 120, page.name
        assert f"(guides/{page.name})" in index
        assert blocks(page, "bash") or blocks(page, "python"), page.name


TRAININGS = [words for page in PAGES for words in commands(page) if "apps/pretrain" in words]


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_configuration_of_the_guides_is_one(words):
    arguments = [word for word in words[words.index("apps/pretrain") + 1 :] if word != "--print-config"]
    load_config(arguments, schema=SCHEMA, config_dirs=[CONFIGS], default="stdlib")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_the_programs_of_a_guide_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    if page.stem == "multiplex":
        desk(tmp_path)
        prepare("text", [tmp_path / "notes"], tokenizer="byte", val_one_in=2, out=tmp_path / "data/notes", quiet=True)
    for program in blocks(page, "python"):
        exec(compile(program, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=lambda page: page.stem)
def test_the_commands_of_a_guide_run(page, tmp_path, fork, fork_ranks):
    desk(tmp_path)
    for words in commands(page):
        assert words, f"an empty line in a block of {page.name}"
        if words[:2] != ["uv", "run"]:  # make -n, and scripts with --dry-run, which run nothing
            assert {"-n", "--dry-run"} & set(words)
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, (words, done.stderr)
            continue
        (start,) = [i for i, word in enumerate(words) if word.startswith("apps/")]
        launcher, app, arguments = words[2:start], words[start], words[start + 1 :]
        arguments = small(arguments) if app == "apps/pretrain" else arguments
        given = {"folder": str(tmp_path), "argv": [str(ROOT / app), *arguments]}
        if launcher:
            assert launcher[:2] == ["torchrun", "--nproc-per-node"], launcher
            ended = fork_ranks(tmp_path, int(launcher[2]), exec, APP, given)
        else:
            ended = [fork(tmp_path, exec, APP, given)]
        assert not any(end.code for end in ended), (words, ended)

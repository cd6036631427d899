"""The examples of the scripts' README and help run as they stand: their sizes fit their number of processes."""

import re
import shlex
from pathlib import Path

import pytest

from gpt_core.config import load_config
from gpt_core.training import plan_batches
from gpt_core.training.recipe import SCHEMA
from scripting import SCRIPTS
from workspace import ROOT

CONFIGS = ROOT / "apps/pretrain/configs"
READMES = [SCRIPTS / "README.md", ROOT / "README.md", ROOT / "apps/pretrain/README.md"]
SOURCES = [*READMES, *sorted(SCRIPTS.rglob("*.sh"))]
GPUS = ("gpus-per-node", "gpus", "nproc-per-node")
DEFAULTS = {"submit.sh": 8, "vsubmit.sh": 8, "torchrun": 1}


def commands(path: Path):
    """Each command of the fenced blocks of a README, or of the comment at the top of a script, as words."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    else:
        text = "".join(re.findall(r"^#   (.*\n)", text, re.MULTILINE))
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if "apps/pretrain" in line else []
        if "apps/pretrain" in words and not {"--help", "--print-config", "--mode"} & set(words):
            yield words


def processes(words):
    """How many processes a command starts, by the options of its launcher."""
    launcher = words[: words.index("apps/pretrain")]
    (default,) = [value for name, value in DEFAULTS.items() if any(name == Path(w).name for w in launcher)] or [1]
    given = dict(zip((word.removeprefix("--") for word in launcher), launcher[1:], strict=False))
    (per_node,) = [int(given[name]) for name in GPUS if name in given] or [default]
    return int(given.get("nodes", given.get("nnodes", 1))) * max(per_node, 1)


EXAMPLES = [(path.name, words) for path in SOURCES for words in commands(path)]


def test_the_examples_are_found():
    assert {name for name, _ in EXAMPLES} == {"README.md", "submit.sh", "vsubmit.sh"}
    assert sum(processes(words) == 16 for _, words in EXAMPLES) >= 8
    assert {processes(words) for _, words in EXAMPLES} >= {1, 8, 16}


@pytest.mark.parametrize("words", [words for _, words in EXAMPLES], ids=" ".join)
def test_an_examples_batch_can_be_shared_by_its_processes(words):
    arguments = words[words.index("apps/pretrain") + 1 :]
    training = load_config(arguments, schema=SCHEMA, config_dirs=[CONFIGS], default="stdlib").section("training")
    plan, alone = plan_batches(training, processes(words)), plan_batches(training, 1)
    stated = training.global_batch_size or training.gradient_accumulation_steps
    assert plan.sequences == alone.sequences or not stated, "what stays the same: the step"


def test_gpt2_124m_of_two_nodes_takes_the_step_of_gpt2_124m():
    (words,) = [words for _, words in EXAMPLES if "gpt2-124m" in words and processes(words) == 16]
    arguments = words[words.index("apps/pretrain") + 1 :]
    sections = [load_config(given, schema=SCHEMA, config_dirs=[CONFIGS]).section("training") for given in
                (arguments, ["gpt2-124m"])]  # fmt: skip
    assert plan_batches(sections[0], 16).tokens == plan_batches(sections[1], 1).tokens

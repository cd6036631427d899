"""Every shipped configuration loads, and describes the model and the run that it says."""

from pathlib import Path

import pytest
import torch

from gpt_core.config import load_config
from gpt_core.training import plan_batches
from gpt_core.training.recipe import SCHEMA

FOLDERS = sorted(Path(__file__).parents[1].glob("apps/*/configs"))
CONFIGS = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
PARAMETERS = {  # vocabulary of the data, exact parameters
    "gpt2-124m": (50257, 124_373_760),
    "gpt2-small": (50257, 162_201_600),
    "gpt2-post-124m": (50257, 124_373_760),
    "llama-124m": (50257, 162_220_800),
    "team-124m": (50257, 162_220_800),
    "hybrid-124m": (50257, 123_587_328),
    "gpt2-1.36b": (50257, 1_267_322_112),
    "llama-1.36b": (32000, 1_294_159_104),
    "baseline-10b": (50257, 124_373_760),
    "quick-test": (65, 10_745_088),
    "shakespeare-byte": (260, 10_819_968),
    "shakespeare-char": (65, 804_096),
}


def load(path, *overrides):
    below = [str(path.with_name("weights.yaml"))] if path.parents[1].name == "midtrain" else []  # in place of a run's
    return load_config([*below, str(path), *overrides], schema=SCHEMA, config_dirs=[path.parent])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_loads_and_describes_itself(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ") and len(first) > 20, "the first line is what --help shows"
    config = load(path)
    training = config.section("training")
    steps = training.max_steps or 300  # or as many as an epoch has
    schedule = config.component("scheduler").build(max_steps=steps)
    rates = [schedule(step) for step in range(0, steps, max(1, steps // 200))]
    assert max(rates) > 0.7 and min(rates) >= 0 and rates[-1] <= 1
    assert plan_batches(training, 1).tokens > 0
    if path.stem not in ("base", "nanogpt"):
        assert config.section("general").project_name == path.stem, "runs of two configurations would mix"


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem in PARAMETERS], ids=lambda path: path.stem)
def test_models_have_their_published_size(path):
    vocab_size, parameters = PARAMETERS[path.stem]
    config = load(path)
    with torch.device("meta"):
        model = config.component("model").build(
            vocab_size=vocab_size, context_length=config.section("training").context_length
        )
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_gpt2_124m_is_nanogpts_run():
    config = load(FOLDERS[0].parent.parent / "pretrain/configs/gpt2-124m.yaml")
    training = config.section("training")
    assert plan_batches(training, 8).tokens == plan_batches(training, 1).tokens == 491_520
    assert [plan_batches(training, world).micro_steps for world in (1, 8)] == [40, 5]
    schedule = config.component("scheduler").build(max_steps=training.max_steps)
    assert 6e-4 * schedule(301_000) == pytest.approx(3.3e-4)
    assert config.component("model").build(vocab_size=64, context_length=8, n_embd=12).config.norm_position == "pre"


@pytest.mark.parametrize(
    ("flags", "section", "key", "value"),
    [
        (["--max_iters=100"], "training", "max_steps", 100),
        (["--batch_size", "3"], "training", "device_batch_size", 3),
        (["--block_size=32"], "training", "context_length", 32),
        (["--compile=False"], "general", "compile", "off"),
        (["--training.max_steps", "1e3"], "training", "max_steps", 1000),
    ],
)
def test_nanogpt_flags_reach_their_place(flags, section, key, value):
    config = load(FOLDERS[0].parent.parent / "pretrain/configs/stdlib.yaml", *flags)
    assert getattr(config.section(section), key) == value

"""The section `scaling` of a configuration: what it sets, in which order, what the user's words do to it."""

import re
from pathlib import Path

import pytest
import yaml

from gpt_core.checkpoint import CheckpointError
from gpt_core.config import load_config
from gpt_core.models.nanochat import nanochat
from gpt_core.scaling import Data, on_meta, report, resolve
from gpt_core.training import plan_batches
from gpt_core.training.eval_intervals import with_intervals
from gpt_core.training.recipe import SCHEMA
from gpt_optim import depth
from workspace import ROOT

CONFIGS = ROOT / "apps/pretrain/configs"
GPT2 = Data(vocab_size=50257, epoch_tokens=10_000_000_000)

NANOCHAT = ["--model.module=gpt_core.models.nanochat.nanochat", "--windows=SSSL", "--context_length=2048"]


def load(*argv, configs=CONFIGS):
    return load_config(argv, schema=SCHEMA, config_dirs=[configs], default="depth")


def plan(*argv, world_size=1, device_type="cuda", data=GPT2):
    return resolve(load(*argv), world_size=world_size, device_type=device_type, data=data)


def test_depth_12_on_a_budget_is_the_tables_run():
    made = plan("--depth", "12", "--target-flops", "1e18", world_size=8)
    training, model = made.config.section("training"), made.config.component("model").kwargs
    assert (model["n_layer"], model["n_embd"], model["n_head"]) == (12, 768, 6)
    assert (training.max_steps, training.device_batch_size, training.global_batch_size) == (2232, 16, 512)
    assert plan_batches(training, 8).tokens == 2**19
    lines = report(made).splitlines()
    for line in (
        "Model parameters: 162,201,600",
        "FLOPs per token: 854,654,976",
        "Total batch size: 524,288",
        "Calculated number of iterations from target FLOPs: 2,232",
        "Total training tokens: 1,170,210,816",
        "Tokens : N ratio: 9.47 (N = blocks and head)",
        "Epochs of the data: 0.1170",
    ):
        assert line in lines
    assert re.search(r"^  transformer_matrices +84,934,656$", report(made), re.MULTILINE)
    assert not made.warnings


def test_steps_beat_flops_and_flops_beat_the_ratio():
    both = ["--depth=12", "--param-data-ratio=12", "--target-flops=1e18"]
    assert plan(*both).steps == 2232 and plan(*both[:2]).steps == 2828 == plan("--depth=12").steps
    for flag in ("--num-iterations=77", "--max_steps=77", "--training.max_steps=77"):
        made = plan(*both, flag)
        assert made.steps == made.config.section("training").max_steps == 77
        assert "training.max_steps" in made.kept and "training.max_steps stays 77" in report(made)


def test_the_batch_is_decided_before_the_steps_and_both_by_the_processes():
    small = plan("--depth=6", "--target-flops=1e18")
    assert (small.step.tokens, small.steps) == (2**18, round(1e18 / 207_912_960 / 2**18))
    three = plan("--depth=12", "--target-flops=1e18", "--device-batch-size=64", world_size=3)
    assert (three.step.tokens, three.steps) == (589_824, round(1e18 / 854_654_976 / 589_824))
    assert "524,288 -> 589,824 tokens" in three.warnings[0]
    assert three.factors.rate == pytest.approx((589_824 / 2**19) ** 0.5)
    fixed = plan("--depth=6", "--total-batch-size=524288")
    assert fixed.step.tokens == 2**19 and fixed.factors.rate == 1
    with pytest.raises(ValueError, match="strict_batch"):
        plan("--device-batch-size=64", "--strict-batch=true", world_size=3)


def test_rules_reach_the_optimizer_and_the_rates_of_its_groups():
    made = plan("--depth=20")
    kwargs = made.config.component("optimizer").kwargs
    assert kwargs["rate_factor"] == pytest.approx(2**0.5)
    assert kwargs["width_factor"] == pytest.approx((1280 / 768) ** -0.5)
    assert kwargs["decay_factor"] == pytest.approx(0.3819, abs=1e-4)
    old = plan("--depth=6", "--scaling", "legacy").config
    assert old.section("training").global_batch_size == 512
    kwargs = old.component("optimizer").kwargs
    assert kwargs["rate_factor"] == pytest.approx(2**0.5) and kwargs["decay_factor"] == pytest.approx(4)
    off = plan("--depth=6", "--scaling=off").config
    assert "rate_factor" not in off.component("optimizer").kwargs
    assert plan_batches(off.section("training"), 1).tokens == 16 * 1024, "as the configuration says"


def test_what_is_typed_goes_before_a_file():
    """A batch in sequences before the file's in tokens; micro-batches of an evaluation before the file's tokens."""
    made = plan("gpt2-small", "--global_batch_size=256", "--max_steps=10")
    assert (made.step.tokens, made.steps, made.steps_by) == (256 * 1024, 10, "max_steps")
    for typed, tokens in ([], 10_485_760), (["--eval_iters=3"], None), (["--eval_iters=3", "--eval.eval_tokens=9"], 9):
        assert with_intervals(load("depth", *typed)).section("eval").eval_tokens == tokens


def test_words_of_the_user_win_and_are_named():
    made = plan("--depth=8", "--n_head=8", "--device_batch_size=4", "--optimizer.module_kwargs.decay_factor=1.5")
    assert made.config.component("model").kwargs["n_head"] == 8
    assert made.step.device_batch_size == 4 and made.factors.decay == 1.5
    text = report(made)
    assert "n_head stays 8, not 4" in text and "decay_factor stays 1.5, not 2.4" in text
    other = plan("gpt2-124m", "--depth=6")
    assert "gpt_optim.adamw takes no rate_factor" in other.warnings[0] and other.factors.rate == 1


def test_a_run_can_be_repeated_from_its_configuration(tmp_path):
    first = plan("--depth=6", "--target-flops=3e17", "--n_embd=768", "--windows=SSSL", "--context_length=2048")
    file = tmp_path / "config.yaml"
    file.write_text(first.config.to_yaml())
    again = plan(str(file))
    assert again.config.tree == first.config.tree
    assert first.config.component("model").kwargs["window_pattern"] == "SSSLSL"
    saved = yaml.safe_load(file.read_text())
    assert saved["scaling"]["keep"] == ["model.module_kwargs.n_embd"]
    assert saved["scaling"]["derived"]["training.max_steps"] == "target_flops 3e+17"
    deeper = plan(str(file), "--depth=8")  # what was derived is derived anew, what was kept stays
    assert (deeper.config.component("model").kwargs["n_layer"], deeper.width) == (8, 768)
    assert deeper.config.section("training").max_steps == deeper.steps != first.steps


def test_more_than_one_epoch_is_a_warning():
    made = plan("--depth=6", "--target-flops=6e18")
    assert made.epochs > 2.8 and "epochs of the training data" in made.warnings[0]
    assert plan(data=Data(50257, None)).epochs is None


def test_the_page_has_the_tables_of_the_code():
    rows = (ROOT / "docs/depth.md").read_text(encoding="utf-8").splitlines()
    for number in (6, 8, 10, 12, 14, 20, 26):
        made = plan(f"--depth={number}", "--target-flops=1e18", "--total-batch-size=524288")
        kwargs, counts = made.config.component("model").kwargs, made.counts
        cells = [number, kwargs["n_embd"], kwargs["n_head"]]
        large = [
            counts.wte,
            counts.transformer_matrices,
            counts.total,
            counts.scaling,
            made.flops_per_token,
            made.steps,
        ]
        ratio = f"{made.tokens / counts.scaling:.2f}"
        assert f"| {' | '.join([*map(str, cells), *(f'{each:,}' for each in large), ratio])} |" in rows
        ruled = plan(f"--depth={number}")
        legacy = plan(f"--depth={number}", "--scaling=legacy")
        factors = [ruled.factors.rate, ruled.factors.width, ruled.factors.decay]
        factors += [legacy.factors.rate, legacy.factors.decay]
        shown = [str(number), f"{ruled.step.tokens:,}", *(f"{each:.4f}" for each in factors)]
        assert f"| {' | '.join(shown)} | {ruled.step.device_batch_size} |" in rows
        extras = plan(f"--depth={number}", *NANOCHAT, data=Data(32768, None))
        counts = extras.counts
        large = [counts.wte, counts.value_embeds, counts.lm_head, counts.transformer_matrices, counts.scalars]
        large += [counts.total, counts.scaling, extras.flops_per_token]
        assert f"| {number} | {' | '.join(f'{each:,}' for each in large)} |" in rows


def test_without_a_depth_only_the_horizon_is_derived():
    made = plan("gpt2-small", "--target-flops=1e18", world_size=2)
    assert made.config.component("model").kwargs["n_head"] == 12 and made.step.tokens == 2**19
    assert made.steps == 2232 and not made.warnings and made.factors.rate == 1
    assert resolve(load("stdlib"), world_size=1, device_type="cpu") is None, "nothing is asked for"


def test_gpt2_small_is_the_recipe_of_the_readme():
    config = plan("gpt2-small", world_size=8).config
    training = config.section("training")
    assert plan_batches(training, 8).tokens * training.max_steps == 10_239_868_928
    rate = config.component("scheduler").build(max_steps=training.max_steps)
    assert 6e-4 * rate(0) == pytest.approx(8.3916e-7, rel=1e-4) and rate(714) == 1
    assert 6e-4 * rate(10123) == pytest.approx(3.3e-4) and 6e-4 * rate(19531) == pytest.approx(6e-5)
    short = config.component("scheduler").build(max_steps=1000)
    assert short(99) == 1 and short(1000) == pytest.approx(0.1), "the warm-up is a tenth of a short run"
    warmdown = load("depth").component("scheduler").build(max_steps=1000)
    values = [warmdown(step) for step in (350, 351, 675, 1000)]
    assert values == pytest.approx([1.0, 0.998538, 0.525, 0.05], abs=1e-6)


@pytest.mark.parametrize(
    ("app", "argv", "message"),
    [
        ("speedrun", ["speedrun-68", "--depth=4"], "stages.device_batch_size changes it"),
        ("speedrun", ["desk", "--depth=4"], "got a Speedrun: .* recipe of its own"),
        ("predictor", ["predictor", "--depth=4"], "scaling.depth sets|got a Predictor"),
        ("pretrain", ["--target-flops=-1"], "target_flops must be positive, got -1"),
        ("pretrain", ["--param-data-ratio=0"], "param_data_ratio must be positive"),
        ("pretrain", ["--depth=0"], "depth must be at least 1, got 0"),
        ("pretrain", ["--windows=SX"], "pattern of S"),
        ("pretrain", ["--total-batch-size=4096", "--global_batch_size=4"], "say the same thing twice"),
        ("pretrain", ["--scaling=new"], "'auto' | 'legacy' | 'off'"),
    ],
)
def test_what_has_no_answer_is_refused(app, argv, message):
    with pytest.raises(ValueError, match=message):
        resolve(load(*argv, configs=ROOT / "apps" / app / "configs"), world_size=1, device_type="cpu", data=GPT2)


def test_weights_of_a_run_bring_their_sizes(shared_workbench):
    assert shared_workbench.pretrain("--run_name=base", "--max_steps=2", "--eval_iters=1", "--max_new_tokens=0") is None
    weights = shared_workbench.out / "base/checkpoints/latest"
    config = load(str(shared_workbench.config), "--param-data-ratio=3", "--total-batch-size=64")
    made = resolve(config, world_size=1, device_type="cpu", data=Data(17, 10_000), weights=weights)
    assert made.width == 16 and made.steps == made.counts.scaling * 3 // 64
    with pytest.raises(ValueError, match=r"sizes a new model, .* brings one"):
        resolve(load("--depth=4"), world_size=1, device_type="cpu", data=GPT2, weights=weights)
    for others in ("gpt2", shared_workbench.config):
        with pytest.raises(CheckpointError, match=r"a checkpoint of ours: .*meta.json.* leave --target-flops"):
            resolve(config, world_size=1, device_type="cpu", data=GPT2, weights=others)


@pytest.mark.parametrize("switches", [{}, {"value_embeddings": False}, {"smear": False, "backout": False}])
def test_the_depth_optimizer_takes_every_parameter_of_nanochat(switches):
    with on_meta():
        model = nanochat(100, 32, n_layer=4, n_head=2, n_embd=64, **switches)
    taken = [p for group in depth(model).param_groups for p in group["params"]]
    assert len(taken) == len(set(taken)) and set(taken) == set(model.parameters())


def test_pretrain_with_a_depth_trains_on_text(shared_workbench):
    sizes = ["--depth=2", "--aspect-ratio=8", "--head-dim=8", "--param-data-ratio=1", "--total-batch-size=256"]
    config = Path(CONFIGS / "depth-desk.yaml")
    arguments = [*sizes, "--dataset=tiny", "--context_length=16", "--max_new_tokens=4", "--eval_iters=2", "--threads=1"]
    assert shared_workbench.pretrain("--run_name=deep", *arguments, config=config) is None
    run = shared_workbench.out / "deep"
    log = (run / "log.txt").read_text()
    steps = int(re.search(r"iterations from target data:param ratio: (\d+)", log)[1])
    parameters = 2 * 12 * 16**2 + 2 * 64 * 16
    assert f"Model parameters: {parameters:,}" in log and steps == (parameters - 64 * 16) // 256
    losses = [float(loss) for loss in re.findall(r"val/loss=([\d.]+)", log)]
    assert losses[-1] < losses[0] - 0.3
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["training"]["max_steps"] == steps and saved["scaling"]["derived"]

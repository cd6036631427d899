"""The command line: forms of an override, types, flat keys, unknown keys, help and --print-config."""

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from gpt_core.config import ALIASES, Alias, Component, ConfigError, load_config
from gpt_core.config.coerce import Mismatch, Text, coerce, fields_of


@dataclass(frozen=True)
class Inner:
    depth: int = 1
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """How long to train."""

    max_steps: int = 10
    """Optimizer steps."""
    grad_clip: float = 1.0
    context_length: int = 8
    device_batch_size: int = 4
    gradient_accumulation_steps: int | None = None
    shuffle: bool = False
    note: str = "n"
    maybe: str | None = None
    anything: Any = None
    limit: float | None = None
    mode: Literal["off", "block", "model"] = "off"
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    betas: tuple[float, float] = (0.9, 0.95)
    table: dict[str, int] = field(default_factory=dict)
    inner: Inner = Inner()


def adamw(model, learning_rate: float = 6e-4, beta1: float = 0.9, betas=(0.9, 0.95), fused=True):
    return model, learning_rate


@dataclass(frozen=True)
class Wide:
    width: int = 3
    """Of a layer."""


def make(model, size: int, rate: float = 0.5, **flags):
    """The factory."""


make.accepts = Wide


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(argv...) on base.yaml: Training's defaults, an optimizer and some values without a declared type."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(
        "optimizer: {module: parts.adamw, module_kwargs: {learning_rate: 1e-3}}\n"
        "_v: {i: 3, f: 1e6, b: true, s: abc, n: null, l: [1, 2], m: {x: 1, y: 2}, digits: '7', t: '_time:'}\n"
    )

    def run(*argv, **given):
        schema = {"training": Training, "optimizer": Component(args=1, optional=True)}
        return load_config(argv, **{"schema": schema, "default": "base.yaml", **given})

    return run


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    parts = types.ModuleType("parts")
    parts.adamw, parts.make = adamw, make
    monkeypatch.setitem(sys.modules, "parts", parts)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("i", "5", 5),
        ("i", "1e3", 1000),
        ("i", "-2", -2),
        ("i", "012", 12),  # YAML alone would read ten
        ("i", "1_000", 1000),
        ("i", "0x10", 16),
        ("f", "500000", 500000.0),
        ("f", "1e-3", 0.001),
        ("f", "-1.5", -1.5),
        ("f", "inf", float("inf")),
        ("b", "no", False),
        ("b", "False", False),
        ("b", "0", False),
        ("b", "y", True),
        ("b", "ON", True),
        ("s", "5", "5"),
        ("s", "true", "true"),
        ("s", "null", "null"),
        ("s", "a=b=c", "a=b=c"),
        ("s", "a: b", "a: b"),
        ("s", "[1, 2]", "[1, 2]"),
        ("s", "", ""),
        ("digits", "8", "8"),
        ("n", "5", 5),
        ("n", "x", "x"),
        ("n", "1e-3", 0.001),
        ("n", "true", True),
        ("n", "null", None),
        ("n", "None", None),
        ("n", "[1, a]", [1, "a"]),
        ("n", "{a: 1}", {"a": 1}),
        ("n", "a: b", "a: b"),
        ("n", "@x", "@x"),
        ("l", "[3]", [3]),
        ("l", "[]", []),
        ("m", "{x: 5}", {"x": 5, "y": 2}),
        ("m", "{_inherit: false, z: 5}", {"z": 5}),
        ("m", "null", None),
        ("m.x", "4", {"x": 4, "y": 2}),
        ("l.1", "7", [1, 7]),
    ],
)
def test_an_override_keeps_the_type_of_what_it_replaces(load, key, text, value):
    for argv in ((f"--_v.{key}={text}",), (f"--_v.{key}", text)):
        got = load(*argv).tree["_v"][key.split(".")[0]]
        assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("i", "1.5", "int"),
        ("i", "x", "int"),
        ("i", "true", "int"),
        ("i", "", "int"),
        ("i", "12:30", "int"),
        ("f", "fast", "float"),
        ("b", "2", "bool"),
        ("b", "", "bool"),
        ("l", "3", "list"),
        ("l", "[1", "list"),
        ("m", "3", "mapping"),
        ("m", "{a", "not a valid YAML"),
    ],
)
def test_a_value_of_another_type_is_an_error_with_key_value_and_type(load, key, text, wanted):
    with pytest.raises(ConfigError, match=rf"command line: _v\.{key}: .*{wanted}") as error:
        load(f"--_v.{key}={text}")
    assert text in str(error.value)


def test_declared_types_rule_over_the_type_of_the_default(load):
    section = load(
        *("--training.grad_clip", "2", "--training.maybe=3", "--training.limit", "1", "--training.mode=block"),
        *(
            "--training.sizes=[3, 4e0]",
            "--training.betas.1=1",
            "--training.table",
            "{a: 1}",
            "--training.inner.depth=2",
        ),
        *("--training.gradient_accumulation_steps=8", "--training.inner.words=[a]", "--training.shuffle=yes"),
    ).section("training")
    assert section == Training(
        grad_clip=2.0, maybe="3", limit=1.0, mode="block", sizes=[3, 4], betas=(0.9, 1.0), table={"a": 1},
        inner=Inner(2, ("a",)), gradient_accumulation_steps=8, shuffle=True,
    )  # fmt: skip
    assert isinstance(section.grad_clip, float) and isinstance(section.betas[1], float)
    assert load("--training.maybe=null").section("training").maybe is None
    assert load("--training.maybe=").section("training").maybe == ""


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("--training.mode=fast", "'off' | 'block' | 'model'"),
        ("--training.betas=[1]", "got 1 items, wanted 2"),
        ("--training.sizes=[a]", "wanted int"),
        ("--training.max_steps=null", "wanted int"),
        ("--training=3", "wanted a mapping"),
        ("--training.inner={depht: 3}", r"training\.inner\.depht.*unknown key; did you mean 'depth'"),
        ("--training.inner={depth: x}", r"training\.inner\.depth.*wanted int"),
        ("--training.inner.dep=3", r"did you mean 'training\.inner\.depth'"),
    ],
)
def test_declared_types_are_enforced(load, override, match):
    with pytest.raises(ConfigError, match=match):
        load(override)


def test_unquoted_off_in_a_file_is_the_word_where_a_word_is_wanted(load):
    Path("a.yaml").write_text("training: {mode: off, anything: off}")
    section = load("a.yaml").section("training")
    assert section.mode == "off" and section.anything is False


@pytest.mark.parametrize("value", ["yes", 1, "1", 1.5, None])
def test_values_of_files_are_not_converted(load, value):
    with pytest.raises(Mismatch):
        coerce(value, bool)
    with pytest.raises(Mismatch):
        coerce(3, str)


def test_unions_take_the_member_that_fits_best():
    assert [type(coerce(v, int | float)) for v in (3, 3.0, Text("3"), Text("3.5"))] == [int, float, int, float]
    assert coerce(Text("3"), int | str) == 3 and coerce(Text("x"), int | str) == "x"
    assert coerce(Text("off"), bool | Literal["auto"]) is False
    assert coerce(Text("auto"), bool | Literal["auto"]) == "auto"
    assert coerce([1, 2], tuple[int, ...] | None) == (1, 2)
    assert type(coerce(Text("3"), float | int)) is int
    assert coerce(Text("3"), complex | str) == "3"  # text rather than a type that is not checked


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["--training.max_steps"], "--training.max_steps needs a value"),
        (["--training.max_steps", "--seed=3"], "--training.max_steps needs a value"),
        (["--=3"], "names no key"),
        (["--", "x"], "names no key"),
        (["-x"], "unknown flag '-x'"),
        (["--training.max_step=3"], "unknown key 'training.max_step'; did you mean 'training.max_steps'"),
        (["--trainin.max_steps=3"], "did you mean 'training.max_steps'"),
        (["--max_step=3"], "did you mean 'max_steps'"),
        (["--grad_clp=3"], "did you mean 'grad_clip'"),
        (["--shuffle=3"], r"did you mean 'training\.shuffle'"),
        (["--zzzzzz.yyy=3"], "known sections: training, optimizer"),
        (["--_v.i.x=3"], "unknown key '_v.i.x'"),
        (["--_v.l.5=3"], "unknown key '_v.l.5'"),
        (["--optimizer.modul=3"], r"did you mean 'optimizer\.module'"),
        (["--optimizer.module_kwargs.lerning_rate=3"], r"did you mean 'optimizer\.module_kwargs\.learning_rate'"),
        (["--n_layer=3"], r"unknown key 'n_layer' \(it means model\.module_kwargs\.n_layer\)"),
    ],
)
def test_mistakes_are_told(load, argv, match):
    with pytest.raises(ConfigError, match=match):
        load(*argv)


def test_overrides_and_configurations_mix_and_the_last_override_wins(load):
    Path("a.yaml").write_text("training: {max_steps: 1}")
    Path("b.yaml").write_text("training: {grad_clip: 3}")
    config = load("a.yaml", "--training.max_steps", "5", "b.yaml", "--training.max_steps=6")
    assert config.section("training") == Training(max_steps=6, grad_clip=3.0)


def test_the_last_of_two_names_of_one_key_wins(load):
    argv = ("--max_iters=5", "--training.max_steps=6")
    assert load(*argv).section("training").max_steps == 6
    assert load(*argv, "--max_iters=7").section("training").max_steps == 7


@pytest.mark.parametrize("form", [["++_v.new.x=3"], ["--++_v.new.x=3"], ["++_v.new.x", "3"], ["--++_v.new.x", "3"]])
def test_plus_plus_creates_a_key(load, form):
    assert load(*form).tree["_v"]["new"] == {"x": 3}
    with pytest.raises(ConfigError, match="unknown key"):
        load("--_v.new.x=3")


def test_a_created_key_in_a_section_is_kept_in_the_tree_and_saved(load):
    config = load("++training.note_to_self=3")
    assert config.tree["training"]["note_to_self"] == 3
    Path("saved.yaml").write_text(config.to_yaml())
    assert load("saved.yaml").tree == config.tree


def test_component_keys_know_the_signature_of_the_factory_in_effect(load):
    config = load("--optimizer.module_kwargs.fused=false", "--optimizer.module_kwargs.betas.1", "0.99", "--beta1=1")
    assert config.component("optimizer").kwargs == {
        "learning_rate": 0.001, "fused": False, "betas": [0.9, 0.99], "beta1": 1.0,
    }  # fmt: skip
    assert load("--optimizer=null").component("optimizer") is None


def test_flat_keys_mean_what_they_mean_in_nanogpt(load):
    section = load(
        *("--max_iters=100", "--block_size", "64", "--batch_size=12", "--gradient_accumulation_steps=40"),
        *("--grad_clip=0", "--learning_rate=1"),
    )
    assert section.section("training") == Training(100, 0.0, 64, 12, 40)
    assert section.component("optimizer").kwargs == {"learning_rate": 1.0}
    assert section.origin("training.max_steps") == "command line"


def test_an_alias_may_have_several_places_and_other_values(load):
    aliases = {
        "b1": Alias(("optimizer.module_kwargs.none", "optimizer.module_kwargs.betas.0")),
        "compile": Alias("training.mode", ((True, "model"), (False, "off"))),
        "also": Alias("training.mode", ((True, "block"), (False, "off"))),
    }

    def mode(*argv):
        return load(*argv, aliases=aliases).section("training").mode

    assert mode("--compile=True") == "model" and mode("--compile=block") == "block"
    assert mode("--compile", "yes", "--compile=False") == "off" and mode("--compile=1") == "model"
    assert mode("--also=True", "--compile=False") == "block"  # the one turned off does not undo the other
    with pytest.raises(ConfigError, match="wanted 'off'"):
        mode("--compile=fast")


NANOGPT = """always_save_checkpoint backend batch_size beta1 beta2 bias block_size compile dataset decay_lr device
dropout dtype eval_interval eval_iters eval_only grad_clip gradient_accumulation_steps init_from learning_rate
log_interval lr_decay_iters max_iters min_lr n_embd n_head n_layer out_dir seed wandb_log wandb_project wandb_run_name
warmup_iters weight_decay start num_samples max_new_tokens temperature top_k"""
DESCENDANTS = """arch_preset normalization activation position_encoding attention_backend norm_position ffn_type
weight_tying rope_theta d_ff num_key_value_heads attention_dropout residual_dropout norm_eps use_zero1 use_fsdp
gradient_log_interval log_save_interval keep_all_checkpoints eval_at_start"""


@pytest.mark.parametrize("key", [*NANOGPT.split(), *DESCENDANTS.split()])
def test_every_key_of_nanogpt_and_its_descendants_has_a_place(key):
    sections = {"general", "model", "data", "optimizer", "scheduler", "training", "eval", "checkpoint", "logging"}
    sections |= {"generate", "sample", "parallel"}
    target = ALIASES[key]
    for path in [target] if isinstance(target, str) else target.paths:
        assert path.split(".")[0] in sections and "." in path


def test_help_lists_configurations_keys_types_and_documentation(load, tmp_path, capsys):
    (tmp_path / "shipped").mkdir()
    text = "# Small enough for a laptop.\ntraining: {max_steps: 1e3}\noptimizer: {module: parts.make}\n"
    (tmp_path / "shipped" / "tiny.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        load("--help", config_dirs=["shipped"], default="tiny")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    for part in (
        "tiny Small enough for a laptop.",
        "training: How long to train.",
        "training.max_steps 1000 [int] Optimizer steps.",
        "training.mode off ['off' | 'block' | 'model']",
        "training.maybe null [str or null]",
        "max_iters training.max_steps",
        "optimizer.module parts.make The factory.",
        "optimizer.module_kwargs.rate 0.5 [float]",
        "optimizer.module_kwargs.size (required) [int]",
        "optimizer.module_kwargs.width … [int; Wide: 3] Of a layer.",
    ):
        assert part in text
    assert "n_layer" not in text  # this app has no model


def test_help_survives_a_broken_configuration_and_says_so(load, capsys):
    Path("a.yaml").write_text("training: [")
    with pytest.raises(SystemExit):
        load("a.yaml", "-h")
    assert "not valid YAML" in capsys.readouterr().out


def test_print_config_shows_every_value_with_its_origin(load, capsys, monkeypatch):
    monkeypatch.setenv("GPT_CONFIG_TEST", "hunter2")
    Path("a.yaml").write_text("training:\n  max_steps: 5\n  note: ${oc.env:GPT_CONFIG_TEST}\n")
    with pytest.raises(SystemExit) as stop:
        load("a.yaml", "--print-config", "--training.grad_clip=2")
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in capsys.readouterr().out.splitlines()}
    assert stop.value.code == 0
    assert rows["training.max_steps"] == ["5", "a.yaml:2"]
    assert rows["training.grad_clip"] == ["2.0", "command line"]
    assert rows["training.shuffle"] == ["false", "default of Training"]
    assert rows["training.note"] == ["${oc.env:GPT_CONFIG_TEST}", "a.yaml:3"]  # a secret is not shown


def test_a_secret_is_in_no_message_and_not_in_the_saved_configuration(load, monkeypatch):
    monkeypatch.setenv("GPT_CONFIG_TEST", "hunter2")
    Path("a.yaml").write_text("training: {note: '${oc.env:GPT_CONFIG_TEST}'}")
    config = load("a.yaml")
    assert config.section("training").note == "hunter2"
    assert "hunter2" not in config.to_yaml() + config.describe()
    with pytest.raises(ConfigError) as error:
        load("--training.max_steps", "${oc.env:GPT_CONFIG_TEST}")
    assert "hunter2" not in str(error.value) and "wanted int" in str(error.value)


def test_every_flat_key_leads_to_a_key_that_exists():
    from gpt_core.models import GPTConfig
    from gpt_core.scaling import ScalingConfig
    from gpt_core.training import config as sections

    names = {"general": "General", "parallel": "Parallel", "training": "Training", "eval": "Eval"}
    names |= {"checkpoint": "Checkpoint", "logging": "Logging", "generate": "Sample"}
    known = {f"{name}.{key}" for name, kind in names.items() for key in fields_of(getattr(sections, f"{kind}Config"))}
    known |= {f"scaling.{key}" for key in fields_of(ScalingConfig)}
    known |= {f"model.module_kwargs.{key}" for key in [*fields_of(GPTConfig), "preset"]}
    component = ("data.", "loss.", "optimizer.", "scheduler.")  # depend on the factory
    lost = {
        key
        for key, to in ALIASES.items()
        for path in [to if isinstance(to, str) else to.paths[0]]
        if path not in known and not path.startswith(component)
    }
    of_gpt_dag = {"dag_depth", "gate_mode", "plan_source", "predictor"}  # keys of another model
    assert lost <= {"eval_only", "top_p", "repetition_penalty"} | of_gpt_dag  # not every app has these


def test_a_switch_may_become_a_copy(load):
    aliases = {"save": Alias("training.max_steps", ((True, "_copy: /training/context_length"), (False, 0)))}
    assert load("--save=True", aliases=aliases).section("training").max_steps == 8
    assert load("--save=False", aliases=aliases).section("training").max_steps == 0


def test_all_mistakes_of_the_command_line_are_told_together(load):
    with pytest.raises(ConfigError) as error:
        load("--training.max_step=3", "--training.grad_clip=x", "--n_layer=3", "--training.note=ok")
    assert len(str(error.value).splitlines()) == 3


def test_the_tree_for_logs_keeps_interpolations_as_written(load, monkeypatch):
    monkeypatch.setenv("GPT_CONFIG_TEST", "hunter2")
    config = load("--training.note=${oc.env:GPT_CONFIG_TEST}", "--training.maybe=${training.note}")
    assert config.tree["training"]["maybe"] == "hunter2"
    assert config.safe_tree["training"]["maybe"] == "${training.note}"
    assert "hunter2" not in str(config.safe_tree)


def test_the_tree_handed_out_is_a_copy(load):
    config = load()
    config.tree["_v"]["l"].append(3)
    assert config.tree["_v"]["l"] == [1, 2]

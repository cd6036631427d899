"""Components: importing factories, checking their arguments, building; errors are reported together."""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from gpt_core.config import Component, ConfigError, load_config


@dataclass(frozen=True)
class Shape:
    vocab_size: int
    width: int = 8
    ratio: float | None = None
    norm: Literal["rms", "layer"] = "rms"


@dataclass(frozen=True)
class Positive:
    steps: int = 1
    required: int = 1

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be positive")


@dataclass(frozen=True)
class Demanding:
    steps: int


def model(vocab_size: int, context_length: int, preset: str = "p", **flags: Any):
    return "model", vocab_size, context_length, preset, flags


model.accepts = Shape


def optimizer(model, learning_rate: float, betas: tuple[float, float] = (0.9, 0.95), steps: int = None):  # noqa: RUF013
    return "optimizer", model, learning_rate, betas, steps


def loss():
    return "loss"


def plain(size=None):
    return size


def anything(**kwargs):
    return kwargs


class Data:
    def __init__(self, path: Path, rank: int, transform: Callable | None = None, words: list[str] = ()):
        self.path, self.rank = path, rank


def unevaluated(x: "NotImported", y: int = 1):  # noqa: F821
    return x, y


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(text, *argv, schema=...): `parts.NAME` are the factories of this file."""
    monkeypatch.chdir(tmp_path)
    parts = types.ModuleType("parts")
    for thing in (model, optimizer, loss, plain, anything, Data, unevaluated):
        setattr(parts, thing.__name__, thing)
    parts.number = 3
    monkeypatch.setitem(sys.modules, "parts", parts)

    def run(text, *argv, **schema):
        Path("a.yaml").write_text(text)
        return load_config(["a.yaml", *argv], schema=schema)

    return run


MODEL = Component(runtime=frozenset({"vocab_size", "context_length"}))
OPTIMIZER = Component(args=1)


def test_runtime_arguments_are_given_where_the_signature_names_them_and_the_configuration_does_not(load):
    config = load("model: {module: parts.model, module_kwargs: {vocab_size: 5, width: 4.0}}", model=MODEL)
    factory = config.component("model")
    assert (factory.path, factory.kwargs) == ("parts.model", {"vocab_size": 5, "width": 4})
    built = factory.build(vocab_size=99, context_length=7, rank=0)
    assert built == ("model", 5, 7, "p", {"width": 4})


def test_positional_arguments_of_the_app(load):
    config = load("o: {module: parts.optimizer, module_kwargs: {learning_rate: 1, betas: [0, 1]}}", o=OPTIMIZER)
    assert config.component("o").build("m", max_steps=3) == ("optimizer", "m", 1.0, (0.0, 1.0), None)
    assert config.tree["o"]["module_kwargs"]["betas"] == [0.0, 1.0]
    with pytest.raises(ConfigError, match=r"o\.module_kwargs\.model .*is given by the app"):
        load("o: {module: parts.optimizer, module_kwargs: {learning_rate: 1, model: 3}}", o=OPTIMIZER)


def test_a_class_is_a_factory_and_unchecked_types_pass(load):
    config = load("d: {module: parts.Data, module_kwargs: {path: x, transform: y}}", d=Component(frozenset({"rank"})))
    data = config.component("d").build(rank=2)
    assert (data.path, data.rank) == (Path("x"), 2)
    assert config.tree["d"]["module_kwargs"]["path"] == "x"


def test_without_an_annotation_an_override_keeps_the_type_in_the_file(load):
    text = "x: {module: parts.plain, module_kwargs: {size: 1e6}}"
    assert type(load(text, "--x.module_kwargs.size=500000", x=Component()).component("x").kwargs["size"]) is float


def test_module_kwargs_may_be_absent_or_null(load):
    for text in ("l: {module: parts.loss}", "l: {module: parts.loss, module_kwargs: null}"):
        assert load(text, l=Component()).component("l").build(x=1) == "loss"


def test_optional_components_may_be_null_or_absent(load):
    for text in ("l: null", "{}"):
        assert load(text, l=Component(optional=True)).component("l") is None
        with pytest.raises(ConfigError, match=r"l.*: is required"):
            load(text, l=Component())


def test_a_factory_with_open_kwargs_takes_any_but_gets_only_named_runtime_arguments(load):
    config = load("x: {module: parts.anything, module_kwargs: {a: 1}}", x=Component())
    assert config.component("x").build(rank=1) == {"a": 1}


def test_annotations_that_cannot_be_evaluated_are_not_checked(load):
    assert load("x: {module: parts.unevaluated, module_kwargs: {x: 1, y: z}}", x=Component()).component(
        "x"
    ).build() == (1, "z")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "{module: parts.model, module_kwargs: {widht: 3}}",
            r"m\.module_kwargs\.widht \(a\.yaml:1\): .*did you mean 'width'",
        ),
        ("{module: parts.model, module_kwargs: {width: wide}}", "got 'wide' .*wanted int"),
        ("{module: parts.model, module_kwargs: {ratio: true}}", "wanted float or null"),
        ("{module: parts.model, module_kwargs: {norm: batch}}", "wanted 'rms' | 'layer'"),
        ("{module: parts.model, module_kwargs: {preset: 3}}", "wanted str: write it in quotes"),
        ("{module: parts.model, module_kwargs: [1]}", "wanted a mapping"),
        ("{module: parts.optimizer}", r"m\.module_kwargs\.model .*is required by parts\.optimizer"),
        ("{module: parts.modell}", "no 'modell'; did you mean 'model'"),
        ("{module: partss.model}", "importing 'partss' failed: No module named 'partss'"),
        ("{module: model}", "not the dotted path"),
        ("{module: parts.number}", "is a int, not a factory"),
        ("{module: 3}", "wanted the dotted path"),
        ("{module_kwargs: {}}", "wanted the dotted path"),
        ("{module: parts.loss, kwargs: {}}", r"m\.kwargs .*unknown key; did you mean 'module_kwargs'"),
        ("5", "wanted a mapping with module"),
    ],
)
def test_mistakes_in_a_component(load, text, match):
    with pytest.raises(ConfigError, match=match):
        load(f"m: {text}", m=MODEL)


def test_all_errors_are_reported_together_before_anything_is_built(load):
    text = """
model:
  module: parts.model
  module_kwargs:
    widht: 3
    norm: batch
o: {module: parts.optimzer, module_kwargs: {}}
training: {steps: x}
other: {steps: 0}
"""
    with pytest.raises(ConfigError) as error:
        load(text, model=MODEL, o=OPTIMIZER, training=Positive, other=Positive, missing=Demanding)
    lines = str(error.value).splitlines()
    assert len(lines) == 6
    assert "model.module_kwargs.widht (a.yaml:5)" in lines[0]
    assert "model.module_kwargs.norm (a.yaml:6)" in lines[1]
    assert "o.module (a.yaml:7)" in lines[2] and "did you mean 'optimizer'" in lines[2]
    assert "training.steps (a.yaml:8)" in lines[3]
    assert "other (a.yaml, default of Positive): steps=0 must be positive" in lines[4]
    assert "missing.steps: is required and not set" in lines[5] and "--missing.steps" in lines[5]


def test_question_marks_are_a_value_that_must_be_given(load):
    with pytest.raises(ConfigError, match=r"t\.steps \(a\.yaml:1\): is required: .* --t\.steps"):
        load("t: {steps: '???'}", t=Positive)
    assert load("t: {steps: '???'}", "--t.steps=3", t=Positive).section("t").steps == 3


def test_swapping_a_module_drops_its_arguments_only_when_asked(load):
    text = "o: {module: parts.optimizer, module_kwargs: {learning_rate: 1}}"
    with pytest.raises(ConfigError, match=r"parts\.loss takes no 'learning_rate'"):
        load(text, "--o.module=parts.loss", o=Component())
    swapped = load(
        text, "--o.module_kwargs._inherit=false", "--o.module=parts.model", "--o.module_kwargs.width=2", o=MODEL
    )
    assert swapped.component("o").kwargs == {"width": 2}


def test_asking_for_a_section_as_a_component_is_an_error(load):
    config = load("l: {module: parts.loss}", l=Component(), t=Positive)
    with pytest.raises(ConfigError, match=r"Config\.component"):
        config.section("l")
    with pytest.raises(ConfigError, match=r"Config\.section"):
        config.component("t")
    with pytest.raises(ConfigError, match="no section 'tt'"):
        config.section("tt")

"""`_copy`, `_time`, `_env`, `$NAME` and `${…}`."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from gpt_core.config import ConfigError, expand, load_config

CLOCK = datetime(2026, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Training:
    max_steps: int = 10
    decay: int = 0


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """tree(yaml text, argv...) -> the resolved tree."""
    monkeypatch.chdir(tmp_path)

    def run(text, *argv):
        Path("a.yaml").write_text(text)
        return load_config(["a.yaml", *argv], schema={"training": Training}, clock=CLOCK, environ={}).tree

    return run


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{a: 1, b: '_copy: /_v/a'}", {"a": 1, "b": 1}),
        ("{a: 1, b: '_copy:../a'}", {"a": 1, "b": 1}),
        ("{a: 1, b: '_copy: .././a'}", {"a": 1, "b": 1}),
        ("{a: {x: 1}, b: {y: '_copy: ../../a/x'}}", {"a": {"x": 1}, "b": {"y": 1}}),
        ("{a: '_copy: ../b', b: '_copy: ../c', c: 3}", {"a": 3, "b": 3, "c": 3}),
        ("{a: {x: {y: 1}}, b: '_copy: ../a'}", {"a": {"x": {"y": 1}}, "b": {"x": {"y": 1}}}),
        ("{a: '_copy: ../b/y', b: '_copy: ../c', c: {y: 2}}", {"a": 2, "b": {"y": 2}, "c": {"y": 2}}),
        ("{a: {x: 1, y: 2}, b: {_copy: /_v/a, x: 3}}", {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}),
        (
            "{a: {x: {p: 1, q: 2}}, b: {_copy: ../a, x: {p: 3}}}",
            {"a": {"x": {"p": 1, "q": 2}}, "b": {"x": {"p": 3, "q": 2}}},
        ),
        ("{a: {x: {p: 1}}, b: {_copy: ../a, x: null}}", {"a": {"x": {"p": 1}}, "b": {"x": None}}),
        ("{a: {x: 1}, b: {_copy: ../a, x: {p: 3}}}", {"a": {"x": 1}, "b": {"x": {"p": 3}}}),
        # a copy that needs a key which its own mapping gets by copying
        (
            "{a: {lr: 1}, b: {_copy: ../a, m: '_copy: ../lr'}, c: '_copy: ../b/lr'}",
            {"a": {"lr": 1}, "b": {"m": 1, "lr": 1}, "c": 1},
        ),
        # a relative path inside a copied mapping is read where it is written
        (
            "{a: {x: 1, y: '_copy: ../x'}, b: {c: '_copy: ../../a'}}",
            {"a": {"x": 1, "y": 1}, "b": {"c": {"x": 1, "y": 1}}},
        ),
        # chains of the key form
        (
            "{a: {x: 1}, b: {_copy: ../a, y: 2}, c: {_copy: ../b, z: 3}}",
            {"a": {"x": 1}, "b": {"y": 2, "x": 1}, "c": {"z": 3, "y": 2, "x": 1}},
        ),
        # the source of a mapping, copied again inside it
        ("{a: {x: 1}, b: {_copy: ../a, s: {_copy: /_v/a}}}", {"a": {"x": 1}, "b": {"s": {"x": 1}, "x": 1}}),
        ("{a: 1, b: [2, '_copy: ../a', {c: '_copy: ../a'}]}", {"a": 1, "b": [2, 1, {"c": 1}]}),
        ("{a: {x: 1, y: 1}, b: [{_copy: ../a, x: 5}]}", {"a": {"x": 1, "y": 1}, "b": [{"x": 5, "y": 1}]}),
        ("{a: {x: 1}, b: ['_copy: ../a']}", {"a": {"x": 1}, "b": [{"x": 1}]}),
        ("{a: [1, 2], b: '_copy: ../a'}", {"a": [1, 2], "b": [1, 2]}),
        ("{a: null, b: '_copy: ../a'}", {"a": None, "b": None}),
        ("{3: 1, b: '_copy: ../3'}", {3: 1, "b": 1}),
        ("{a: 'see _copy: /x', b: x}", {"a": "see _copy: /x", "b": "x"}),
        ("{a: '\\_copy: /x', b: '\\\\_time:'}", {"a": "_copy: /x", "b": "\\_time:"}),
    ],
)
def test_copy(tree, text, result):
    assert tree(f"_v: {text}")["_v"] == result


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{a: '_copy: ../b', b: '_copy: ../a'}", "circle: /_v/a -> /_v/b -> /_v/a"),
        ("{a: '_copy: ../a'}", "circle: /_v/a -> /_v/a"),
        ("{a: {_copy: ../b}, b: {_copy: ../a}}", "circle: /_v/a -> /_v/b -> /_v/a"),
        ("{a: {b: '_copy: /_v/a'}}", "/_v/a contains itself"),
        ("{a: {b: '_copy: /_v/c'}, c: {d: '_copy: /_v/a'}}", "contains itself"),
        ("{a: ['_copy: ../a']}", "/_v/a contains itself"),
        ("{a: '_copy: ../../../../x'}", r"a\.yaml:1: _copy: .* climbs above the root from /_v/a"),
        ("{abc: 1, a: '_copy: ../abd'}", "there is no /_v/abd; did you mean 'abc'"),
        ("{a: '_copy: /nowhere/b/c'}", "there is no /nowhere"),
        ("{a: 1, b: '_copy: ../a/x/y'}", "/_v/a is a value, it has no 'x'"),
        ("{a: null, b: '_copy: ../a/x'}", "/_v/a is a value, it has no 'x'"),
        ("{a: 1, b: {_copy: ../a}}", "the key _copy merges a mapping, but /_v/a is 1"),
        ("{a: 1, b: {_copy: ../c}}", "there is no /_v/c"),
        ("{b: {_copy: 3}}", "_copy takes a path"),
        ("{b: '_copy:'}", "_copy needs a path"),
        ("{a: 1, b: [{_copy: ../a}]}", "is not a mapping"),
    ],
)
def test_copy_errors_name_the_place(tree, text, match):
    with pytest.raises(ConfigError, match=match):
        tree(f"_v: {text}")


def test_copied_mappings_are_independent(tree):
    copied = tree("_v: {a: {x: [1]}, b: '_copy: ../a'}")["_v"]
    copied["b"]["x"].append(2)
    assert copied["a"]["x"] == [1]


def test_overriding_a_source_moves_its_copies_and_overriding_a_copy_leaves_the_source(tree):
    text = "training: {max_steps: 5, decay: '_copy: /training/max_steps'}\n_v: {n: '_copy: /training/decay'}"
    assert tree(text)["training"] == {"max_steps": 5, "decay": 5}
    moved = tree(text, "--training.max_steps=50")
    assert moved["training"] == {"max_steps": 50, "decay": 50} and moved["_v"]["n"] == 50
    assert tree(text, "--training.decay", "7")["training"] == {"max_steps": 5, "decay": 7}


def test_keys_that_exist_only_by_copying_can_be_overridden(tree):
    text = "_a: {x: 1, y: {z: 2}}\n_b: '_copy: /_a'\n_c: {_copy: /_a}"
    assert tree(text, "--_b.y.z=3")["_b"] == {"y": {"z": 3}, "x": 1}
    assert tree(text, "--_c.y.z=3")["_c"] == {"y": {"z": 3}, "x": 1}
    assert tree(text, "--_b.y.z=3")["_a"] == {"x": 1, "y": {"z": 2}}
    assert tree(text, "--_a.x=5")["_b"]["x"] == 5


def test_an_override_may_be_a_copy(tree):
    text = "training: {max_steps: 5, decay: 1}"
    assert tree(text, "--training.decay", "_copy: /training/max_steps")["training"]["decay"] == 5


def test_copies_of_dataclass_defaults(tree):
    assert tree("_v: '_copy: /training/max_steps'")["_v"] == 10


def test_the_origin_of_a_copy_is_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("_v: 3\ntraining: {decay: '_copy: /_v'}")
    config = load_config(["a.yaml"], schema={"training": Training})
    assert config.origin("training.decay") == "a.yaml:1 (copy of /_v)"


def test_time_is_one_frozen_clock_in_both_forms(tree):
    text = """
_v:
  whole: '_time: %Y%m%d'
  plain: '_time:'
  inside: 'exp_{_time:%Y%m%d-%H%M%S}_{_time:%H}'
  empty: 'exp_{_time:}'
  list: ['_time:%M']
  copied: '_copy: ../whole'
  not: 'my_time: 3'
"""
    assert tree(text)["_v"] == {
        "whole": "20260203",
        "plain": "20260203-040506",
        "inside": "exp_20260203-040506_04",
        "empty": "exp_20260203-040506",
        "list": ["05"],
        "copied": "20260203",
        "not": "my_time: 3",
    }


def test_the_clock_is_read_once_when_none_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = ", ".join(["'_time:%f'"] * 50)
    Path("a.yaml").write_text(f"_v: [{values}]")
    assert len(set(load_config(["a.yaml"], schema={}).tree["_v"])) == 1


def test_interpolation(tree, monkeypatch):
    monkeypatch.setenv("GPT_CONFIG_TEST", "secret")
    text = """
training: {max_steps: 7, decay: '${training.max_steps}'}
_v: {rel: '${.name}-x', name: n, env: '${oc.env:GPT_CONFIG_TEST}', other: '${oc.env:GPT_NOT_SET,fallback}',
     literal: '\\${training}', list: ['${training.max_steps}'], mapping: '${training}'}
"""
    resolved = tree(text)
    assert resolved["training"]["decay"] == 7
    assert tree(text, "--training.max_steps=9")["training"]["decay"] == 9
    assert resolved["_v"] == {
        "rel": "n-x",
        "name": "n",
        "env": "secret",
        "other": "fallback",
        "literal": "${training}",
        "list": [7],
        "mapping": {"max_steps": 7, "decay": 7},
    }


@pytest.mark.parametrize(
    "value",
    ["${training.nothing}", "${oc.env:GPT_NOT_SET}", "${unclosed", "${.b}"],
    ids=["key", "env", "syntax", "circle"],
)
def test_interpolation_errors_are_config_errors(tree, value):
    with pytest.raises(ConfigError):
        tree(f"_v: {{b: '{value}'}}")


def test_values_keep_their_dollar_names_until_they_are_used(tree):
    assert tree("_v: $OUT_DIR/x")["_v"] == "$OUT_DIR/x"
    environ = {"OUT_DIR": "/data", "HOME": "/home/u"}
    assert expand("$OUT_DIR/${OUT_DIR}x/$", environ) == "/data//datax/$"
    assert expand("~/x", environ) == "/home/u/x"
    assert expand("a~b", environ) == "a~b"
    with pytest.raises(ConfigError, match="'\\$OUT_DIRS/x' needs the environment variable OUT_DIRS"):
        expand("$OUT_DIRS/x", environ)


def test_expand_uses_the_process_environment_by_default(monkeypatch):
    monkeypatch.setenv("GPT_CONFIG_TEST", "here")
    assert expand("$GPT_CONFIG_TEST") == "here"


def test_env_is_exported_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("_env: {run_name: 'x_{_time:%Y}', steps: '_copy: /_v'}\n_v: 'ten'")
    environ = {"OUT_DIR": "out"}
    config = load_config(["a.yaml"], schema={}, environ=environ, clock=CLOCK)
    assert environ == {"OUT_DIR": "out"}
    config.export_env(environ)
    assert environ == {"OUT_DIR": "out", "run_name": "x_2026", "steps": "ten"}
    assert expand("$OUT_DIR/$run_name", environ) == "out/x_2026"
    Path("a.yaml").write_text("_env: {n: 3}")
    with pytest.raises(ConfigError, match=r"_env\.n: got 3"):
        load_config(["a.yaml"], schema={}).export_env({})

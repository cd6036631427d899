"""Properties that hold for every tree: merging is associative and idempotent, a saved configuration loads back."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_core.config import Component, Config, ConfigError, load_config
from gpt_core.config.tree import merge, plain, tree_of, without_marks

KEYS = st.sampled_from(["a", "b", "c"])


@dataclass(frozen=True)
class Training:
    steps: int = 10
    rate: float | None = None
    sizes: tuple[int, ...] = (1, 2)


SCHEMA = {"training": Training, "part": Component(), "maybe": Component(optional=True)}
BASE = """
training: {rate: 1}
part: {module: textwrap.shorten, module_kwargs: {text: '_copy: /_v/a', width: '_copy: /training/steps'}}
_v: {a: x, l: ['_copy: ../a'], m: {_copy: /training}}
"""
KEYS_WRITTEN = """training training.steps training.sizes.1 training.new training._copy training._inherit part
part.module
part.module_kwargs part.module_kwargs.width part.module_kwargs.new.x maybe maybe.module _v _v.m _v.m.steps _v.l.0
_inherit _copy _v.. __include__"""
VALUES_WRITTEN = """1|1e3|x||null|true|[1|[1, 2]|{a: 1}|{_inherit: false}|{|*a|a: b|\0|_copy: /training|_copy: ../../x
|_copy: /part|_copy: /|_copy:|_time:%Y|???|textwrap.dedent|${training.steps}|${training}|${_v.l}|${|${x|\\${x}"""
FLAGS = st.builds(
    "{}{}={}".format,
    st.sampled_from(["--", "++"]),
    st.sampled_from(KEYS_WRITTEN.split()),
    st.sampled_from(VALUES_WRITTEN.split("|")),
)
NAMES = st.text(min_size=1).filter(lambda key: not key.startswith(("++", "_inherit", "_copy")))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TRICKY = st.sampled_from(
    ["1e-3", "012", "12:30", "no", "null", "~", "2024-01-01", "$HOME", "a: b", "# x", "- x", "=", "<<", "é\x85\u2028"]
) | st.sampled_from(
    [
        "_copy: /a",
        "\\_copy: /a",
        "_time:%Y",
        "x{_time:%Y}",
        "${a}",
        "\\${a}",
        "\\\\${a}",
        "x${a}y\\",
        "${oc.env:HOME}",
        "???",
    ]
)
VALUES = st.recursive(
    SCALARS | TRICKY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
SMALL = st.recursive(
    st.integers(0, 3) | st.none(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def marked(mapping, draw):
    """The mapping with `_inherit: false` in some of its mappings."""
    if not isinstance(mapping, dict):
        return mapping
    inner = {key: marked(value, draw) for key, value in mapping.items()}
    return {**inner, "_inherit": False} if draw(st.booleans()) and draw(st.booleans()) else inner


@st.composite
def trees(draw):
    return tree_of(marked(draw(st.dictionaries(KEYS, SMALL, max_size=3)), draw), "x")


@settings(deadline=None, max_examples=60)
@given(trees(), trees(), trees())
def test_merging_is_associative(a, b, c):
    left, right = merge(merge(a, b), c), merge(a, merge(b, c))
    assert plain(without_marks(left)) == plain(without_marks(right))


@settings(deadline=None, max_examples=60)
@given(trees(), trees())
def test_merging_keeps_every_value_of_the_overlay_and_changes_no_argument(a, b):
    before = plain(a), plain(b)
    merged = plain(without_marks(merge(a, b)))

    def inside(small, large):
        for key, value in small.items():
            assert inside(value, large[key]) if isinstance(value, dict) else large[key] == value
        return True

    assert inside(plain(without_marks(b)), merged)
    assert (plain(a), plain(b)) == before
    assert plain(without_marks(merge(merge(a, b), b))) == merged


@settings(deadline=None, max_examples=60)
@given(trees())
def test_the_empty_tree_is_neutral(a):
    assert plain(without_marks(merge({}, a))) == plain(without_marks(a)) == plain(without_marks(merge(a, {})))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_a_saved_configuration_loads_back(value):
    saved = Config(tree_of({"_v": value}, "x"), {}, {}).to_yaml()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(saved, encoding="utf-8", newline="")
        loaded = load_config([str(file)], schema={})
    assert loaded.tree == {"_v": value}
    assert loaded.to_yaml() == saved


@settings(deadline=None, max_examples=60)
@given(SCALARS | TRICKY)
def test_text_in_a_saved_configuration_keeps_its_type(value):
    saved = Config(tree_of({"_v": [value]}, "x"), {}, {}).to_yaml()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.yaml").write_text(saved, encoding="utf-8", newline="")
        loaded = load_config([folder], schema={}).tree["_v"][0]
    assert loaded == value and type(loaded) is type(value)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FLAGS, max_size=4))
def test_every_command_line_loads_and_is_repeatable_or_is_a_config_error(argv):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "base.yaml").write_text(BASE)
        try:
            config = load_config(["base", *argv], schema=SCHEMA, config_dirs=[folder])
        except ConfigError as error:
            assert str(error)
            return
        Path(folder, "config.yaml").write_text(config.to_yaml())
        again = load_config([folder], schema=SCHEMA)
    assert again.tree == config.tree

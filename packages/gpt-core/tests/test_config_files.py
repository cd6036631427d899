"""Files: YAML reading, includes, merging, `_inherit`, Python configurations, several positionals, origins."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from gpt_core.config import ConfigError, load_config


@dataclass(frozen=True)
class Training:
    max_steps: int = 10
    learning_rate: float = 0.1
    name: str | None = None
    sizes: tuple[int, ...] = (1, 2)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """load(argv..., file_name=text) in an empty folder; every section but `training` is a free `_` mapping."""
    monkeypatch.chdir(tmp_path)

    def run(*argv, environ=None, default=None, config_dirs=(), **files):
        for name, text in files.items():
            stem, _, suffix = name.rpartition("_")
            Path(f"{stem}.{suffix}").write_text(text)
        return load_config(
            argv, schema={"training": Training}, config_dirs=config_dirs, default=default, environ=environ or {}
        )

    return run


def test_included_files_lie_below_the_including_one_whatever_the_order_of_keys(load):
    config = load(
        "main.yaml",
        one_yaml="_v: {a: one, b: one, c: one}",
        two_yaml="_v: {b: two, c: two}",
        main_yaml="_v: {c: main}\n__include__: [one.yaml, two.yaml]",
    )
    assert config.tree["_v"] == {"a": "one", "b": "two", "c": "main"}
    assert "__include__" not in config.tree


def test_include_takes_one_path_relative_to_its_own_file_and_recurses(load, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.yaml").write_text("_v: {c: 1}")
    (tmp_path / "deep" / "b.yaml").write_text("__include__: er/c.yaml\n_v: {b: 1}")
    config = load("a.yaml", a_yaml="__include__: deep/b.yaml\n_v: {a: 1}")
    assert config.tree["_v"] == {"c": 1, "b": 1, "a": 1}


def test_include_expands_home_and_variables(load, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "x.yaml").write_text("_v: 1")
    environ = {"LIB": str(tmp_path / "lib"), "HOME": str(tmp_path)}
    assert load("a.yaml", environ=environ, a_yaml="__include__: $LIB/x.yaml").tree["_v"] == 1
    assert load("a.yaml", environ=environ, a_yaml="__include__: ~/lib/x.yaml").tree["_v"] == 1
    with pytest.raises(ConfigError, match="LIB"):
        load("a.yaml", a_yaml="__include__: $LIB/x.yaml")


def test_include_of_a_shipped_configuration_from_elsewhere(load, tmp_path):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "base.yaml").write_text("_v: 1")
    assert load("a.yaml", config_dirs=["shipped"], a_yaml="__include__: base.yaml").tree["_v"] == 1


def test_include_circle_names_the_chain(load):
    files = {"a_yaml": "__include__: b.yaml", "b_yaml": "__include__: c.yaml", "c_yaml": "__include__: b.yaml"}
    with pytest.raises(ConfigError, match=r"b\.yaml -> c\.yaml -> b\.yaml"):
        load("a.yaml", **files)
    with pytest.raises(ConfigError, match=r"s\.yaml -> s\.yaml"):
        load("s.yaml", s_yaml="__include__: s.yaml")


def test_missing_include_is_named_with_its_absolute_path_and_its_includer(load, tmp_path):
    with pytest.raises(ConfigError, match="does not exist") as error:
        load("a.yaml", a_yaml="__include__: nowhere.yaml")
    assert str(tmp_path / "nowhere.yaml") in str(error.value) and "a.yaml" in str(error.value)


@pytest.mark.parametrize("include", ["3", "{a: b}", "[1]"])
def test_include_of_another_type_is_an_error(load, include):
    with pytest.raises(ConfigError, match="__include__ is a path or a list"):
        load("a.yaml", a_yaml=f"__include__: {include}")


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_changes_nothing(load, text):
    assert load("a.yaml", a_yaml=text).section("training") == Training()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("_v: 1\n_v: 2", r"a\.yaml:2: .*duplicate key"),
        ("- 1\n- 2", "a configuration is a mapping"),
        ("just text", "a configuration is a mapping"),
        ("_v: [1", r"a\.yaml:\d: not valid YAML"),
        ("_v: &x {y: *x}", "contains itself"),
        ("_v: {no: 1}", "not text; write it in quotes"),
    ],
)
def test_broken_files_are_named_with_their_line(load, text, match):
    with pytest.raises(ConfigError, match=match):
        load("a.yaml", a_yaml=text)


def test_a_file_that_is_not_text_is_an_error(load, tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.yaml: not valid YAML"):
        load("a.yaml")


def test_numbers_anchors_and_merge_keys(load):
    text = "_v: &v {a: 1e-3, b: 3e8, c: '1e-3', p: &p 223, q: *p}\n_w: {<<: *v, a: 2}"
    tree = load("a.yaml", a_yaml=text).tree
    assert tree["_v"] == {"a": 0.001, "b": 3e8, "c": "1e-3", "p": 223, "q": 223}
    assert tree["_w"] == {**tree["_v"], "a": 2}


@pytest.mark.parametrize(
    ("below", "above", "result"),
    [
        ("{a: 1, b: {c: 1}}", "{b: {d: 2}}", {"a": 1, "b": {"c": 1, "d": 2}}),
        ("{a: [1, 2]}", "{a: [3]}", {"a": [3]}),
        ("{a: {b: 1}}", "{a: null}", {"a": None}),
        ("{a: {b: 1}}", "{a: 5}", {"a": 5}),
        ("{a: null}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: 5}", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: {b: 1, c: 2}}", "{a: {_inherit: false, b: 3}}", {"a": {"b": 3}}),
        ("{a: {b: 1, c: 2}}", "{a: {_inherit: true, b: 3}}", {"a": {"b": 3, "c": 2}}),
        ("{a: {b: {c: 1}, d: 1}}", "{a: {b: {_inherit: false}}}", {"a": {"b": {}, "d": 1}}),
        ("{a: 1}", "{_inherit: false, b: 2}", {"b": 2}),
    ],
)
def test_merging(load, below, above, result):
    files = {"one_yaml": f"_v: {below}", "two_yaml": f"_v: {above}", "both_yaml": f"__include__: one.yaml\n_v: {above}"}
    assert load("one.yaml", "two.yaml", **files).tree["_v"] == result
    assert load("one.yaml;two.yaml").tree["_v"] == result
    assert load("both.yaml").tree["_v"] == result


def test_inherit_false_at_the_top_of_a_file_drops_everything_before(load):
    text = "__include__: one.yaml\n_inherit: false\n_w: 2\ntraining: {max_steps: 5}"
    config = load("a.yaml", one_yaml="_v: 1\ntraining: {learning_rate: 3}", a_yaml=text)
    assert "_v" not in config.tree and config.tree["_w"] == 2
    assert config.section("training") == Training(max_steps=5)  # the defaults of the section are not inherited


def test_inherit_false_in_an_included_file_drops_what_its_older_sibling_set(load):
    config = load(
        "c.yaml",
        a_yaml="_v: {x: 1}",
        b_yaml="_v: {_inherit: false, y: 2}",
        c_yaml="__include__: [a.yaml, b.yaml]\n_v: {z: 3}",
    )
    assert config.tree["_v"] == {"y": 2, "z": 3}


def test_inherit_must_be_true_or_false(load):
    with pytest.raises(ConfigError, match=r"_inherit is true or false.*a\.yaml:1"):
        load("a.yaml", a_yaml="_v: {_inherit: maybe}")


def test_later_positionals_win_and_the_default_is_used_when_there_are_none(load, tmp_path):
    (tmp_path / "shipped" / "sub").mkdir(parents=True)
    (tmp_path / "shipped" / "gpt-1.5b.yaml").write_text("_v: shipped\n_w: shipped")
    (tmp_path / "shipped" / "sub" / "x.yaml").write_text("_v: sub")
    own = {"config_dirs": ["shipped"], "default": "gpt-1.5b"}
    assert load(**own).tree["_v"] == "shipped"
    assert load("sub/x", **own).tree["_v"] == "sub"
    assert "_w" not in load("sub/x", **own).tree
    merged = load("gpt-1.5b", "mine.yaml", mine_yaml="_v: mine", **own).tree
    assert (merged["_v"], merged["_w"]) == ("mine", "shipped")


def test_an_unknown_name_lists_the_shipped_ones(load, tmp_path):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "gpt2-124m.yaml").write_text("")
    with pytest.raises(ConfigError, match="did you mean 'gpt2-124m'"):
        load("gpt2-124", config_dirs=["shipped"])
    with pytest.raises(ConfigError, match=r"no configuration file .*gone\.yaml"):
        load("gone.yaml", config_dirs=["shipped"])
    with pytest.raises(ConfigError, match="written --seed=3"):
        load("seed=3")


def test_a_run_is_repeated_from_its_folder(load, tmp_path):
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / "run" / "config.yaml").write_text(load("--training.max_steps=3").to_yaml())
    assert load("out/run").section("training").max_steps == 3


STEPS = {"max_iters": "training.max_steps", "learning_rate": "training.learning_rate"}


def test_python_configuration_is_executed_and_its_plain_values_coerced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.py").write_text(
        "import time\nfrom math import floor\nlearning_rate = 1  # an int for a float\nmax_iters = 2e2\n"
        "_private = 3\ndef helper(): pass\ntraining = {'name': 'ft-' + str(floor(1.5)), 'sizes': (7,)}\n"
    )
    config = load_config(["a.py"], schema={"training": Training}, aliases=STEPS)
    assert config.section("training") == Training(max_steps=200, learning_rate=1.0, name="ft-1", sizes=(7,))
    assert isinstance(config.section("training").learning_rate, float)
    assert config.origin("training.max_steps") == "a.py:4"


def test_python_configuration_sees_no_names_and_lies_on_top_of_the_default(load, tmp_path):
    (tmp_path / "base.yaml").write_text("_v: 1\ntraining: {learning_rate: 5}")
    schema = {"training": Training}
    Path("a.py").write_text("max_iters = 3")
    config = load_config(["a.py"], schema=schema, default="base.yaml", aliases=STEPS)
    assert config.section("training") == Training(max_steps=3, learning_rate=5.0)
    Path("b.py").write_text("max_iters = max_iters + 1")
    with pytest.raises(ConfigError, match=r"b\.py: running it failed: NameError"):
        load_config(["a.py", "b.py"], schema=schema, aliases=STEPS)
    Path("c.py").write_text("\nmax_itres = 3")
    with pytest.raises(ConfigError, match=r"c\.py:2: unknown key 'max_itres'; did you mean 'max_iters'"):
        load_config(["c.py"], schema=schema, aliases=STEPS)
    Path("d.py").write_text("max_iters = 'many'")
    with pytest.raises(ConfigError, match=r"d\.py:1: .*'many'.*wanted int"):
        load_config(["d.py"], schema=schema, aliases=STEPS)


def test_python_and_yaml_files_win_in_the_order_given(load):
    files = {"a_py": "training = {'max_steps': 1}", "b_yaml": "training: {max_steps: 2}"}
    assert load("a.py", "b.yaml", **files).section("training").max_steps == 2
    assert load("b.yaml", "a.py").section("training").max_steps == 1


def test_origins(load):
    config = load("a.yaml", "--training.name=x", a_yaml="# a comment\n\n_v: [1]\ntraining:\n  max_steps: 5\n")
    assert config.origin("training.max_steps") == "a.yaml:5"
    assert config.origin("_v") == "a.yaml:3"
    assert config.origin("training.name") == "command line"
    assert config.origin("training.learning_rate") == "default of Training"
    with pytest.raises(ConfigError, match=r"did you mean 'training\.max_steps'"):
        config.origin("training.max_step")


def test_unknown_keys_in_a_file_name_file_line_and_nearest(load):
    with pytest.raises(ConfigError, match=r"training\.max_step \(a\.yaml:2\): unknown key; did you mean 'max_steps'"):
        load("a.yaml", a_yaml="training:\n  max_step: 5")
    with pytest.raises(ConfigError, match=r"trainig \(a\.yaml\): unknown key; did you mean 'training'"):
        load("a.yaml", a_yaml="trainig: {max_steps: 5}")


def test_a_key_written_with_plus_plus_in_a_file_is_created(load):
    config = load("a.yaml", a_yaml="training: {++note: {x: 1}}")
    assert config.tree["training"]["note"] == {"x": 1}
    assert config.section("training") == Training()


def test_a_null_section_is_an_error_that_tells_how_to_write_an_empty_one(load):
    with pytest.raises(ConfigError, match=r"training \(a\.yaml:1\): got None, wanted a mapping"):
        load("a.yaml", a_yaml="training:")

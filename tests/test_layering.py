"""Imports point downwards only. The table is the one of DESIGN section 2 and of docs/architecture.md.

level 3   apps
level 2   gpt-dag
level 1   gpt-core            gpt-optim
level 0   gpt-kernels         gpt-data        gpt-eval
"""

from pathlib import Path

import pytest

from layering import (
    forbidden_app_imports,
    forbidden_package_imports,
    long_files,
    unused_dependencies,
    work_at_import,
)
from workspace import ROOT

ALLOWED = {
    "gpt-kernels": set(),
    "gpt-data": set(),
    "gpt-eval": set(),
    "gpt-core": {"gpt-kernels"},
    "gpt-optim": {"gpt-kernels"},
    "gpt-dag": {"gpt-core", "gpt-data"},
}

# Declared because the design fixes them, imported by parts that are still to come. Remove a pair when it is used.
NOT_IMPORTED_YET: set[tuple[str, str]] = set()

# Built by their users against the torch and CUDA that they have; no extra could install them everywhere.
USER_INSTALLED = frozenset({"transformer_engine"})

# Folders whose modules are written in a library that only an extra brings; each is imported when it is first asked for,
# by an `__init__` that names the extra where it is missing.
BEHIND_EXTRAS = {"packages/gpt-eval/src/gpt_eval/models": "hf: every backend on this machine is tensors throughout"}

# Files that may exceed the limit, each with its reason: {"packages/gpt-x/src/gpt_x/file.py": "why"}.
LONG_FILES: dict[str, str] = {}


def report(found: list[str]) -> str:
    return "\n".join(["", *found])


def test_packages_import_downwards_and_only_what_they_declare():
    found = forbidden_package_imports(ROOT, ALLOWED, USER_INSTALLED, BEHIND_EXTRAS)
    assert not found, report(found)


def test_apps_import_no_app_and_only_what_the_root_environment_has():
    found = forbidden_app_imports(ROOT)
    assert not found, report(found)


def test_every_declared_dependency_is_imported():
    assert unused_dependencies(ROOT) == NOT_IMPORTED_YET


def test_no_package_works_at_import():
    found = work_at_import(ROOT)
    assert not found, report(found)


def test_modules_of_apps_have_names_of_their_own():
    """They are imported by bare names, and tests run several apps in one process."""
    names = [path.stem for path in ROOT.glob("apps/*/*.py") if path.stem != "__main__"]
    assert len(names) == len(set(names)), sorted(names)


def test_files_stay_small():
    assert long_files(ROOT, limit=400, app_limit=150) == LONG_FILES.keys()


# The checker itself: a small tree that is clean, then one mistake at a time.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    def project(folder, name, dependencies, extras=""):
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["[project]", f'name = "{name}"', f"dependencies = {dependencies}", extras]
        (folder / "pyproject.toml").write_text("\n".join(lines))

    project(tmp_path, "root", ["gpt-low", "gpt-high[plot]"])
    extras = '[project.optional-dependencies]\nplot = ["matplotlib>=3"]'
    project(tmp_path / "packages/gpt-low", "gpt-low", ["numpy>=2"])
    project(tmp_path / "packages/gpt-high", "gpt-high", ["gpt-low"], extras)
    write(tmp_path, "packages/gpt-low/src/gpt_low/__init__.py", '"""Low."""\nimport numpy as np\nA = np.array(1)\n')
    write(
        tmp_path,
        "packages/gpt-high/src/gpt_high/__init__.py",
        "import json\nfrom . import x\nimport gpt_low.y\n"
        "def plot():\n    import matplotlib.pyplot, built_by_the_user\n"
        "plot.needs = json\n",
    )
    write(tmp_path, "apps/train/__main__.py", "import recipe, gpt_high, numpy\n")
    write(tmp_path, "apps/train/recipe.py", "import matplotlib\n")
    write(tmp_path, "apps/show/__main__.py", "import gpt_low\n")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def findings(tree: Path) -> list[str]:
    allowed = {"gpt-low": set(), "gpt-high": {"gpt-low"}}
    built = frozenset({"built_by_the_user"})
    return [*forbidden_package_imports(tree, allowed, built), *forbidden_app_imports(tree), *work_at_import(tree)]


def test_a_clean_tree_has_no_findings(tree):
    assert findings(tree) == []
    assert unused_dependencies(tree) == set()


LOW, HIGH = "packages/gpt-low/src/gpt_low/deep/new.py", "packages/gpt-high/src/gpt_high/new.py"


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (LOW, "import gpt_high", "gpt-low may not import gpt-high"),
        (LOW, "class A:\n  def f(self):\n    from gpt_high.x import y", "gpt-low may not import gpt-high"),
        (LOW, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import gpt_high", "may not import gpt-high"),
        (LOW, "import importlib\nimportlib.import_module('gpt_high.x')", "may not import gpt-high"),
        (LOW, "try:\n  import torch\nexcept ImportError:\n  torch = None", "gpt-low does not declare it"),
        (LOW, "def f():\n  import some_library_nobody_has", "gpt-low does not declare it"),
        (HIGH, "import matplotlib", "import it in the function that needs it"),
        (HIGH, "import built_by_the_user", "import it in the function that needs it"),
        (HIGH, "import train", "a package may not import an app"),
        (HIGH, "from apps.train import x", "a package may not import an app"),
        (HIGH, "import random\nrandom.seed(0)", "works at import: random.seed(0)"),
        (HIGH, "import os\nos.environ['A'] = '1'", "works at import: os.environ"),
        (HIGH, "from torch.backends import cuda\ncuda.matmul.allow_tf32 = True", "works at import: cuda.matmul"),
        ("apps/show/more.py", "def f():\n  import train", "an app may not import an app"),
        ("apps/show/more.py", "import apps.train.recipe", "an app may not import an app"),
        ("apps/show/more.py", "import torch", "the root environment does not declare it"),
        ("apps/show/numpy.py", "", "hides the library"),
        ("packages/gpt-new/pyproject.toml", "[project]\nname = 'gpt-new'", "not in the table"),
        (
            "packages/gpt-low/pyproject.toml",
            "[project]\nname = 'gpt-low'\ndependencies = ['gpt-high', 'numpy']",
            "declares gpt-high: not allowed",
        ),
    ],
)
def test_each_mistake_is_found(tree, path, text, message):
    write(tree, path, text)
    found = findings(tree)
    assert any(message in line for line in found), report(found)


def test_a_folder_behind_an_extra_may_import_what_the_extra_brings_and_nothing_else(tree):
    allowed = {"gpt-low": set(), "gpt-high": {"gpt-low"}}
    write(tree, "packages/gpt-high/src/gpt_high/drawn/new.py", "import matplotlib\nimport some_library_nobody_has")
    behind = ["packages/gpt-high/src/gpt_high/drawn"]
    (found,) = forbidden_package_imports(tree, allowed, frozenset({"built_by_the_user"}), behind)
    assert "some_library_nobody_has: gpt-high does not declare it" in found


def test_unused_dependencies_and_long_files_are_found(tree):
    write(tree, "packages/gpt-low/src/gpt_low/__init__.py", "x = 1\n" * 401)
    write(tree, "apps/show/__main__.py", "x = 1\n" * 151)
    assert unused_dependencies(tree) == {("gpt-low", "numpy")}
    long = {"packages/gpt-low/src/gpt_low/__init__.py", "apps/show/__main__.py"}
    assert long_files(tree, limit=400, app_limit=150) == long
    assert long_files(tree, limit=401, app_limit=151) == set()

"""Every member can be built, published and understood alone: the files and the metadata that this needs."""

import ast
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from workspace import ROOT, Project, distributions, members

ROOT_PROJECT = Project(ROOT)
MEMBERS = members()
NAMES = {project.name for project in MEMBERS}
every_member = pytest.mark.parametrize("project", MEMBERS, ids=lambda project: project.name)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_design_names_all_members():
    assert {"gpt-core", "gpt-dag", "gpt-data", "gpt-eval", "gpt-kernels", "gpt-optim"} == NAMES


def test_the_root_installs_every_member_from_the_workspace():
    assert distributions(ROOT_PROJECT.requirements) >= NAMES  # a missing one is absent from `uv run apps/...`
    assert ROOT_PROJECT.metadata["tool"]["uv"]["sources"].keys() == NAMES


@every_member
def test_a_member_carries_its_own_files(project):
    assert read(project.folder / "LICENSE") == read(ROOT / "LICENSE")
    assert (project.source / "py.typed").is_file()
    assert list(project.folder.glob("tests/test_*.py")), "a package without tests"
    assert not list(project.folder.glob("tests/**/__init__.py")), "test folders are not packages in importlib mode"


@every_member
def test_the_readme_has_an_example_that_imports_the_package(project):
    text = read(project.folder / "README.md")
    assert text.startswith(f"# {project.name}\n")
    examples = text.split("```python\n")[1:]
    assert any(f"from {project.import_name}" in example.split("```")[0] for example in examples)


@every_member
def test_the_changelog_speaks_of_the_current_version(project):
    text = read(project.folder / "CHANGELOG.md")
    _, _, section = text.partition(f"\n## {project.metadata['project']['version']}")
    assert section.split("\n## ")[0].count("\n- "), "the section of the current version has no entry"


@every_member
def test_the_metadata_is_complete_and_alike(project):
    table = project.metadata["project"]
    assert table["readme"] == "README.md"
    assert table["license"] == ROOT_PROJECT.metadata["project"]["license"]
    assert table["license-files"] == ["LICENSE"]
    assert table["requires-python"] == ROOT_PROJECT.metadata["project"]["requires-python"]
    assert len(table["description"]) > 20
    assert version(project.name) == table["version"], "the environment is stale: run `uv sync`"
    backends = [member.metadata["build-system"] for member in MEMBERS]
    assert all(backend == backends[0] for backend in backends)
    assert project.metadata["tool"]["uv"]["build-backend"]["source-include"] == ["CHANGELOG.md", "tests/**"]


@every_member
def test_the_dev_group_runs_the_tests_in_an_environment_of_its_own(project):
    needed = {"pytest"}  # without it `uv run --package` would find somebody else's
    if "timeout" in ROOT_PROJECT.metadata["tool"]["pytest"]["ini_options"]:
        needed.add("pytest-timeout")  # an option that nobody knows is a warning, and warnings are errors
    assert needed <= distributions(project.dev_group)
    assert "pytest" not in project.metadata["tool"], "a pytest table here would hide the root's"


@every_member
def test_ranges_of_siblings_admit_their_version_and_end_before_the_next_minor(project):
    versions = {member.name: Version(member.metadata["project"]["version"]) for member in MEMBERS}
    for requirement in project.requirements:
        if requirement.name in versions:  # uv does not check this between members
            current = versions[requirement.name]
            assert current in requirement.specifier, requirement
            assert Version(f"{current.major}.{current.minor + 1}.0") not in requirement.specifier, requirement


def reexports(node):
    """Imports, their list, and PEP 562's `__getattr__`, which imports late what not everybody has installed."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING" and all(map(reexports, node.body))
    late = isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
    return late or isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign))


@every_member
def test_public_pages_have_a_docstring_and_nothing_but_reexports(project):
    pages = {path: ast.parse(read(path)) for path in project.source.rglob("__init__.py")}
    for path, tree in pages.items():
        assert ast.get_docstring(tree), path
        assert all(map(reexports, tree.body)), f"{path}: only re-exports belong here"
        nodes = [inner for node in tree.body for inner in (node.body if isinstance(node, ast.If) else [node])]
        sources = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module != "typing"]
        imported = [alias for node in sources for alias in node.names]
        marked = {alias.asname for alias in imported if alias.asname == alias.name}
        listed = {name for node in tree.body if isinstance(node, ast.Assign) for name in ast.literal_eval(node.value)}
        public = {alias.asname or alias.name for alias in imported}
        assert public == marked | listed, f"{path}: a re-export is neither `x as x` nor in __all__"
    own = [node for node in pages[project.source / "__init__.py"].body if isinstance(node, ast.ImportFrom)]
    assert own or len(pages) > 1, "the package offers neither names nor subpackages"

"""`docs` and `site-packages`: what is installed, without running it."""

import json

import pytest

from gpt_data import DatasetError, prepare
from gpt_data.preparation import installed
from gpt_data.preparation.installed import docs_source, docstrings, packages_source
from gpt_data.preparation.progress import Progress
from gpt_data.preparation.recipes import RECIPES
from gpt_data.preparation.sources import Request

MODULE = '''"""What the module
    is about."""
import os
raise SystemExit("this must never run")

class A:
    """A class."""
    x = 1

    async def method(self):
        r"""Method \\d."""
        def inner():
            "Inner."

if os:
    def conditional():
        """Under a condition."""

def without():
    return "no docstring"
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of installed packages in place of the real one."""
    root = tmp_path / "site"
    files = {
        "one/__init__.py": MODULE,
        "one/data.md": "# One\n",
        "one/types.pyi": "x: int\n",
        "one/tests/test_one.py": "'a test'\n",
        "one/__pycache__/x.py": "'cache'\n",
        "one/table.bin": "\0",
        "one-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: one\nVersion: 1.0\n",
        "one-1.0.dist-info/notes.md": "metadata\n",
        "two.py": "'''Two.'''\n",
        "copy.py": "'''Two.'''\n",
        "python2.py": "print 'old'\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "large.py").write_text("x = 0\n" * 200_000)
    monkeypatch.setattr(installed, "_roots", lambda: [root])
    library, files = installed.stdlib_files()
    few = [path for path in files if path.parent.name in ("json", "logging", "email")]
    monkeypatch.setattr(installed, "stdlib_files", lambda: (library, few))
    return root


def test_docstrings_are_found_by_parsing(tmp_path):
    (tmp_path / "m.py").write_text(MODULE)
    assert docstrings(tmp_path / "m.py") == (
        "What the module\nis about.\n\n\nA\nA class.\n\n\nA.method\nMethod \\d.\n\n\nA.method.inner\nInner.\n\n\n"
        "conditional\nUnder a condition.\n"
    )


@pytest.mark.parametrize(
    "content", [b"", b"x = 1\n", b"print 'old'\n", b"\xff\xfe", b"'a\0b'\n", b"# coding: nonsense\n"]
)
def test_files_that_say_nothing_are_empty(tmp_path, content):
    (tmp_path / "m.py").write_bytes(content)
    assert docstrings(tmp_path / "m.py") == ""


def test_sources_of_packages_are_their_own_files(packages, tmp_path):
    source = packages_source()
    assert [document.key for document in source.documents] == [
        f"site-packages/{name}"
        for name in ("copy.py", "one/__init__.py", "one/data.md", "one/types.pyi", "python2.py", "two.py")
    ]
    assert source.details == {"packages": {"one": "1.0"}}
    info = prepare("site-packages", tokenizer="byte", root=tmp_path, quiet=True)
    assert info.source["left_out"]["duplicate"] == 1 and info.source["packages"] == {"one": "1.0"}
    assert sum(split.documents for split in info.splits.values()) == 5
    with pytest.raises(DatasetError, match="site-packages takes no texts"):
        prepare("site-packages", ["x"], root=tmp_path / "other")


def test_docs_hold_the_library_the_packages_and_the_reference(packages):
    documents = {document.key: document.text for document in docs_source(Progress("docs", quiet=True)).documents}
    assert documents["site-packages/two.py"] == "Two.\n"
    assert {"lib/json/__init__.py", "topics/for"} <= set(documents)
    assert documents["site-packages/one/__init__.py"].startswith("What the module\nis about.")
    assert "lib/test/__init__.py" not in documents and "site-packages/python2.py" not in documents


def test_docs_become_a_dataset(packages, tmp_path):
    info = prepare("docs", vocab_size=512, root=tmp_path, quiet=True)
    lines = [json.loads(line) for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert {"site-packages/copy.py", "lib/json/decoder.py", "topics/for"} <= {line["document"] for line in lines}
    assert info.splits["val"].documents > 0 and "pydoc topics" in info.source["description"]


def test_without_packages_it_says_so(packages, monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "_roots", lambda: [tmp_path / "none"])
    with pytest.raises(DatasetError, match="no sources of packages are installed here"):
        RECIPES["site-packages"].source(Request((), tmp_path, {}, Progress("docs", quiet=True)))

"""Text of the packages that are installed beside this one: their sources, and what their docstrings say."""

from __future__ import annotations

import ast
import inspect
import platform
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from ..errors import DatasetError
from .documents import Document
from .progress import Progress
from .sources import TESTS, Source, named, pydoc_topics, stdlib_files, walk

SUFFIXES = (".py", ".pyi", ".md", ".rst")
LARGEST_BYTES = 1 << 20
"""Larger sources are tables of data that a program wrote."""


def packages_source() -> Source:
    """The sources of the installed packages: what `site-packages` holds, without tests and metadata."""
    documents = tuple(document for root in _roots() for document in named("site-packages", root, _sources(root)))
    if not documents:
        raise DatasetError(f"{', '.join(map(str, _roots()))}: no sources of packages are installed here. Use stdlib.")
    versions = _versions()
    description = f"sources of {len(versions)} packages installed for Python {platform.python_version()}, without tests"
    return Source(description, "various", documents, strict=False, details={"packages": versions})


def docs_source(progress: Progress) -> Source:
    """Docstrings of the Python library and of the installed packages, found by parsing, and pydoc's topics.

    A document is all that one file says, in the order of the file.
    """
    root, files = stdlib_files()
    found = named("lib", root, files)
    for folder in _roots():
        found += named("site-packages", folder, (path for path in _sources(folder) if path.suffix == ".py"))
    progress.phase("reading docstrings in", sum(document.size() for document in found))
    documents: list[Document] = []
    for document in found:
        assert document.path is not None
        if text := docstrings(document.path):
            documents.append(Document(document.key, text=text))
        progress.advance(document.size())
    topics, versions = pydoc_topics(), _versions()
    description = (
        f"docstrings of Python {platform.python_version()} and of {len(versions)} installed packages, {len(topics)} "
        "pydoc topics"
    )
    return Source(description, "various", (*documents, *topics), strict=False, details={"packages": versions})


def docstrings(path: Path) -> str:
    """The docstrings of a source file without their indentation, each after the name of what it is about.

    Empty if there are none, or if the file is no Python of this version.
    """
    try:
        with tokenize.open(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes that are no escapes, in the code of others
            tree = ast.parse(file.read())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return ""
    return "\n\n".join(f"{name}\n{text}" if name else text for name, text in _walk_docstrings(tree, ""))


def _walk_docstrings(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if documented and (text := ast.get_docstring(node, clean=False)) and (clean := inspect.cleandoc(text).strip()):
        yield prefix, clean + "\n"
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _walk_docstrings(child, f"{prefix}.{child.name}" if prefix else child.name)
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _walk_docstrings(child, prefix)


def _roots() -> list[Path]:
    """Where packages are installed; often one folder for both kinds."""
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys((paths["purelib"], paths["platlib"])) if Path(path).is_dir()]


def _sources(root: Path) -> Iterator[Path]:
    for path in walk(root, TESTS):
        metadata = any(part.endswith((".dist-info", ".egg-info")) for part in path.relative_to(root).parts[:-1])
        if not metadata and path.suffix in SUFFIXES and path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            yield path


def _versions() -> dict[str, str]:
    found = {d.metadata["Name"]: d.version for d in distributions(path=[str(root) for root in _roots()])}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))

"""Sources: what a recipe finds, before anything is read from it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..dataset import DESCRIPTION_FILE
from ..errors import DatasetError
from ..tokenizers import TOKENIZER_FILE
from . import tables
from .documents import Document
from .plan import VAL_ONE_IN, Join
from .progress import Progress
from .tables import Table

NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "encodings", "pydoc_data"})
"""Installed packages and code pages; the topics of pydoc are taken as prose."""
TESTS = frozenset({"test", "tests", "idle_test", "__pycache__"})
"""Tests, which many installs lack, and caches."""
STDLIB_EXCLUDED = NOT_LIBRARY | TESTS
GENERATED = ("_sysconfigdata", "config-", "sitecustomize", "usercustomize")
"""Names that begin so differ between machines with the same Python."""


@dataclass(frozen=True)
class Request:
    """What a user wants of a recipe."""

    texts: Sequence[Path]
    """Files and folders, in place of a download where there is one."""
    downloads: Path
    """Where downloaded files are kept that have no cache of their own."""
    options: Mapping[str, Any]
    """The recipe's options: its own defaults, and what the user chose instead."""
    progress: Progress


@dataclass(frozen=True)
class Source:
    """Documents and tables in a fixed order."""

    description: str
    license: str
    documents: tuple[Document, ...] = ()
    strict: bool = False
    """A file that is not UTF-8 text is an error; False: it is left out and counted."""
    tables: tuple[Table, ...] = ()
    join: Join | None = None
    """Makes documents of the rows, where a row is only a part of one."""
    val_one_in: int = VAL_ONE_IN
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else `dataset.json` says about it."""


def stdlib_source() -> Source:
    """The Python library on this machine without tests, and the language reference of `pydoc`."""
    root, files = stdlib_files()
    topics = pydoc_topics()
    description = f"Python {platform.python_version()}: library sources without tests, {len(topics)} pydoc topics"
    return Source(description, "PSF-2.0", (*named("lib", root, files), *topics), strict=False)


def stdlib_files() -> tuple[Path, list[Path]]:
    """The folder of the Python library, and its sources. DatasetError if it was installed without."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [path for path in walk(root, STDLIB_EXCLUDED) if _is_shared_source(path)]
    if not files:
        raise DatasetError(
            f"{root}: holds no Python sources (a zipped or stripped Python). Use your own text: "
            "`uv run apps/prepare text PATH...`."
        )
    return root, files


def _is_shared_source(path: Path) -> bool:
    return path.suffix == ".py" and not any(part.startswith(GENERATED) for part in (path.name, path.parent.name))


def pydoc_topics() -> list[Document]:
    """The language reference that `help()` shows; minimal Python packages come without it."""
    if importlib.util.find_spec("pydoc_data") is None:
        return []
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    return [Document(f"topics/{name}", text=text) for name, text in sorted(topics.items())]


def text_source(
    paths: Sequence[Path], description: str | None = None, license: str = "unknown", text_field: str | None = None
) -> Source:
    """Files and folders. In a folder every UTF-8 file is a document; datasets and hidden files are left out.

    A file that is named twice, by whatever paths, is there once.
    The rows of .jsonl (.ndjson, also .gz and .zst) and .parquet files are documents; `text_field` holds their text.
    """
    found: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            inside = named(own_name(path), path, walk(path, frozenset({"__pycache__"})))
        elif path.is_file():
            inside = [Document(own_name(path), path)]
        else:
            raise DatasetError(f"{path}: no such file or folder.")
        for document in inside:
            if document.path is not None:
                found.setdefault(document.path, document.key)
    files = {path: found[path] for path in distinct(found)}
    rows = [Table(key, path) for path, key in files.items() if tables.is_table(path)]
    if text_field is not None and not rows:
        raise DatasetError(f"text_field is {text_field!r}, but there is no table (jsonl, parquet) that could have it.")
    return Source(
        description=description or texts_description(paths),
        license=license,
        documents=tuple(Document(key, path) for path, key in files.items() if not tables.is_table(path)),
        strict=not any(path.is_dir() for path in paths),
        tables=tuple(tables.find_field(table, text_field) for table in rows),
    )


def distinct(paths: Iterable[Path]) -> list[Path]:
    """Every file once, by the first path that names it."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def texts_description(paths: Sequence[Path]) -> str:
    """What `dataset.json` says about a user's texts."""
    return "text: " + ", ".join(map(own_name, paths))


def own_name(path: Path) -> str:
    """The last part of a path, also of `.` and `..`."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def walk(root: Path, excluded: frozenset[str]) -> Iterable[Path]:
    """Visible files below `root`, without datasets and tokenizers; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        if _is_made_here(Path(folder), files):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name not in excluded and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _is_made_here(folder: Path, files: Sequence[str]) -> bool:
    """A saved tokenizer, or a dataset: a file of its name alone may be somebody's text."""
    if TOKENIZER_FILE in files:
        return True
    if DESCRIPTION_FILE not in files:
        return False
    try:
        return {"format", "splits", "vocab_size"} <= set(json.loads((folder / DESCRIPTION_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return False


def named(prefix: str, root: Path, files: Iterable[Path]) -> list[Document]:
    """Sorted by name, so that the order does not depend on the file system."""
    keyed = sorted((file.relative_to(root).as_posix(), file) for file in files if file.is_file())
    return [Document(f"{prefix}/{key}", file) for key, file in keyed]

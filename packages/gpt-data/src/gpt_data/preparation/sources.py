"""Sources: documents in a fixed order, and where they come from."""

from __future__ import annotations

import importlib.util
import os
import platform
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from .documents import Document

STDLIB_EXCLUDED = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings", "pydoc_data"}
)
"""Installed packages, tests (missing from many installs), code pages; the topics of pydoc are taken as prose."""
GENERATED = ("_sysconfigdata", "config-", "sitecustomize", "usercustomize")
"""Names that begin so differ between machines with the same Python."""


@dataclass(frozen=True)
class Source:
    """Documents in a fixed order."""

    description: str
    license: str
    documents: tuple[Document, ...]
    strict: bool
    """What is not UTF-8 text is an error; False: it is left out and counted."""


def stdlib_source() -> Source:
    """The Python library on this machine without tests, and the language reference of `pydoc`."""
    root = Path(sysconfig.get_paths()["stdlib"])
    documents = _documents("lib", root, filter(_is_shared_source, _walk(root, STDLIB_EXCLUDED)))
    if not documents:
        raise DatasetError(
            f"{root}: holds no Python sources (a zipped or stripped Python). Use your own text: "
            "`uv run apps/prepare text PATH...`."
        )
    topics = _pydoc_topics()
    documents += [Document(f"topics/{name}", text=text) for name, text in sorted(topics.items())]
    description = f"Python {platform.python_version()}: library sources without tests, {len(topics)} pydoc topics"
    return Source(description, "PSF-2.0", tuple(documents), strict=False)


def _is_shared_source(path: Path) -> bool:
    return path.suffix == ".py" and not any(part.startswith(GENERATED) for part in (path.name, path.parent.name))


def _pydoc_topics() -> dict[str, str]:
    """The language reference that `help()` shows; minimal Python packages come without it."""
    if importlib.util.find_spec("pydoc_data") is None:
        return {}
    return importlib.import_module("pydoc_data.topics").topics


def text_source(paths: Sequence[Path], description: str | None = None, license: str = "unknown") -> Source:
    """Files and folders. In a folder every file that is UTF-8 text is a document; hidden ones are left out."""
    documents: list[Document] = []
    for path in paths:
        if path.is_dir():
            documents += _documents(path.name, path, _walk(path, frozenset({"__pycache__"})))
        elif path.is_file():
            documents.append(Document(path.name, path))
        else:
            raise DatasetError(f"{path}: no such file or folder.")
    description = description or "text: " + ", ".join(path.name for path in paths)
    return Source(description, license, tuple(documents), strict=not any(path.is_dir() for path in paths))


def _walk(root: Path, excluded: frozenset[str]) -> Iterable[Path]:
    """Visible files below `root`; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in excluded and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if not name.startswith("."))


def _documents(prefix: str, root: Path, files: Iterable[Path]) -> list[Document]:
    """Sorted by name, so that the order does not depend on the file system."""
    keyed = sorted((file.relative_to(root).as_posix(), file) for file in files if file.is_file())
    return [Document(f"{prefix}/{key}", file) for key, file in keyed]

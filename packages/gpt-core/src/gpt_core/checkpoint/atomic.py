"""Files and folders that appear complete or not at all: write aside, flush to disk, rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries (the names in it) to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def aside(folder: Path) -> Path:
    """Where `folder` is built before it gets its name; the dot hides it from every reader."""
    return folder.with_name(f".{folder.name}.partial")


def publish(folder: Path) -> None:
    """Give the finished `aside(folder)` its name, replacing a folder that has it already."""
    partial = aside(folder)
    sync_tree(partial)
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        try:
            partial.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
    else:
        partial.rename(folder)
    sync_folder(folder.parent)


def point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older one in one step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name, target_is_directory=True)
    new.replace(link)


@contextmanager
def writing(path: Path) -> Generator[Path]:
    """Yield a path to write; on success it replaces `path`, on failure it is removed and `path` stays as it was."""
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)

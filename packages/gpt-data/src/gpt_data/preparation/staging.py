"""The folder of a dataset under construction: `.NAME.partial/` beside the place where it appears by one rename."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..dataset import DESCRIPTION_FILE, TOKENIZER_FOLDER
from ..durable import sync_tree
from ..errors import DatasetError

SOURCES_FILE = "sources.jsonl"
OWN_FILES = re.compile(
    rf"{DESCRIPTION_FILE}|{SOURCES_FILE}|{TOKENIZER_FOLDER}|(train|val|test)(_mask)?_\d+\.bin|fineweb_(train|val)_\d+\.bin"
)

DESCRIBED_IN_PLACE = ("nanogpt", "speedrun")
"""What `dataset.json` calls the recipe of a folder whose tokens another program wrote."""


@dataclass(frozen=True)
class Staging:
    """root: `.NAME.partial`; everything in it survives kill -9 if it belongs to the same plan."""

    root: Path

    @property
    def dataset(self) -> Path:
        """What becomes the dataset folder."""
        return self.root / "dataset"

    @property
    def tokenizer(self) -> Path:
        return self.dataset / TOKENIZER_FOLDER

    def folder(self, name: str) -> Path:
        """A folder for records or for intermediate files, made if it is missing."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        return path

    def open(self, fingerprint: str) -> None:
        """Keep what an earlier run of the same plan left, remove what another one did."""
        mark = self.root / "fingerprint"
        if self.root.exists() and not (mark.is_file() and mark.read_text() == fingerprint):
            shutil.rmtree(self.root)
        self.dataset.mkdir(parents=True, exist_ok=True)
        mark.write_text(fingerprint)

    def forget_published(self) -> None:
        """Remove what a run left that was killed right after `publish`."""
        if not self.dataset.exists():
            shutil.rmtree(self.root, ignore_errors=True)

    def publish(self, folder: Path) -> None:
        """Make the finished dataset appear in one rename; one that is replaced is moved aside first."""
        sync_tree(self.dataset)
        if folder.exists():
            os.replace(folder, self.root / "replaced")
        os.replace(self.dataset, folder)
        sync_tree(folder)
        shutil.rmtree(self.root)


def check_replaceable(folder: Path) -> None:
    """Never delete what `prepare` did not write: DatasetError unless `folder` is missing, empty or its dataset."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DatasetError(f"{folder}: is a file, so it is not replaced. Choose a folder with --out.")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not OWN_FILES.fullmatch(name)]
    if not foreign and names and not _is_prepared(folder):
        foreign = names
    if foreign:
        raise DatasetError(
            f"{folder}: holds {foreign[0]!r}, which `prepare` did not write, so it is not replaced. Choose another "
            "folder with --out."
        )


def _is_prepared(folder: Path) -> bool:
    """By its description, or by the list of sources where that is damaged or missing. One described in place is not."""
    try:
        recipe = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))["source"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return (folder / SOURCES_FILE).is_file()
    return recipe not in DESCRIBED_IN_PLACE

"""From the name of a dataset to its folder."""

from __future__ import annotations

from pathlib import Path

from .dataset import DESCRIPTION_FILE, DatasetInfo, read_dataset
from .errors import DatasetError
from .preparation import NEEDS_TEXTS, PREPARED_ON_FIRST_USE, RECIPES, prepare
from .root import data_root

FOREIGN = {"nanoGPT": "train.bin", "speedrun": "*_train_*.bin"}
"""Folders that other programs wrote, by the files that tell them."""


def open_dataset(dataset: str | Path, root: str | Path | None = None) -> DatasetInfo:
    """Open a dataset by its name below `root` or by the path of its folder.

    A name that needs neither a network nor arguments (`stdlib`) is prepared on first use: one process works, others
    wait. Errors: DatasetError if it cannot be had that way (and what to do), or if its files are not as it says.
    """
    root = data_root(root)
    for folder in (root / dataset, Path(dataset)):
        if (folder / DESCRIPTION_FILE).exists():
            return read_dataset(folder)
        for kind, files in FOREIGN.items():
            if any(folder.glob(files)):
                raise DatasetError(
                    f"{folder}: is a {kind} folder. Describe it once, which leaves its files as they are: "
                    f"`uv run apps/prepare {kind.lower()} {folder}` or "
                    f"gpt_data.describe_{kind.lower()}({str(folder)!r})."
                )
    name = str(dataset)
    if name in PREPARED_ON_FIRST_USE:
        return prepare(name, root=root)
    where = f"{root.absolute()} has no dataset {name!r}"
    if name in RECIPES and name not in NEEDS_TEXTS:
        raise DatasetError(f"{where}. Prepare it: `uv run apps/prepare {name}` or gpt_data.prepare({name!r}).")
    raise DatasetError(
        f"{where}, and it is no folder with a {DESCRIPTION_FILE} either. Known names: "
        f"{', '.join(n for n in RECIPES if n not in NEEDS_TEXTS)}. Your own text: `uv run apps/prepare text PATH...`."
    )

"""Datasets of the Hugging Face hub: which files belong to one, and copies of them on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .sources import distinct
from .tables import Table, is_table

TIMEOUT_SECONDS = 5.0
"""For the first question to the hub: without a network all ends here."""
REMOTE = re.compile(r"hf://datasets/(?P<repository>.+)@(?P<revision>[^/]+)/(?P<path>.+)")
SPLIT_NAMES = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
"""What the hub calls splits -> what they are called here."""
JSON_NAMES = (".json", ".json.gz", ".json.zst")
"""What the hub calls JSON lines too."""


@dataclass(frozen=True)
class HubFiles:
    """The files of one dataset; those of the hub are downloaded when `tables` asks for them."""

    splits: Mapping[str, Sequence[str]]
    """What the hub calls a split -> its files, in the hub's order."""
    details: Mapping[str, Any]
    """Repository, subset and revision, for `dataset.json`."""
    license: str
    root: Path | None = None
    """The folder that holds the files, if they are copies in one."""

    def tables(self, split: str, side: str | None = None) -> list[Table]:
        """The files of one split, here. side: the split that all their rows are for; None: their hashes decide."""
        for file in self.splits[split]:
            if not is_table(Path(file), also=JSON_NAMES):
                raise DatasetError(f"{file}: is neither parquet nor jsonl, which is all that is read here.")
        return [Table(f"{split}/{self._inside(file)}", _fetch(file), side) for file in self.splits[split]]

    def _inside(self, file: str) -> str:
        """The path in a repository or in the folder, the name of any other file."""
        if remote := REMOTE.fullmatch(file):
            return remote["path"]
        path = Path(file)
        return path.relative_to(self.root).as_posix() if self.root else path.name

    def all_tables(self) -> tuple[Table, ...]:
        """The files of all splits that have a usual name. Without one for validation, hashes decide."""
        known = [split for split in self.splits if split in SPLIT_NAMES]
        sides = [SPLIT_NAMES[split] for split in known]
        if "train" not in sides:
            raise DatasetError(
                f"this dataset has no split 'train', only {', '.join(self.splits)}. Give its files: text FILE..."
            )
        found: list[Table] = []
        for split, side in zip(known, sides, strict=True):
            found += self.tables(split, None if side == "train" and "val" not in sides else side)
        return tuple(found)

    @property
    def ignored(self) -> list[str]:
        """Splits with names that mean nothing here."""
        return [split for split in self.splits if split not in SPLIT_NAMES]


def hub_files(name: str, subset: str | None, revision: str | None) -> HubFiles:
    """Find the files of `name`, or those of a folder laid out like a repository of the hub.

    subset: the configuration, for datasets with several; revision: a commit, tag or branch (default: the newest).
    Errors: DatasetError within seconds if the hub cannot be reached; it also says which name or subset is unknown.
    """
    if Path(name).is_dir():
        root, subset = Path(name).resolve(), subset if _has_subsets(name) else None
        details = {"repository": root.name, "subset": subset}
        return HubFiles(_data_files(str(root), subset, None), details, "unknown", root)
    commit, license = ask_hub(name, revision)
    details = {"repository": name, "subset": subset, "revision": commit}
    return HubFiles(_data_files(name, subset, commit), details, license)


def local_files(paths: Sequence[Path], subset: str | None) -> HubFiles:
    """Copies that the user has: table files, whose names may tell their split, or one folder like a repository."""
    if len(paths) == 1 and paths[0].is_dir():
        return hub_files(str(paths[0]), subset, None)
    found: dict[str, list[str]] = {}
    for path in distinct(paths):
        if not path.is_file():
            raise DatasetError(f"{path}: no such file. Give .parquet or .jsonl files, or one folder that holds them.")
        words = re.split(r"[^a-z]+", path.name.lower())
        found.setdefault(next((word for word in words if word in SPLIT_NAMES), "train"), []).append(str(path))
    return HubFiles(found, {"copies": [path.name for path in paths]}, "unknown")


def download_file(repository: str, path: str, revision: str | None) -> Path:
    """One file, kept in the cache of huggingface_hub; a download that was cut off goes on where it was."""
    hub = _huggingface_hub()
    try:
        return Path(hub.hf_hub_download(repository, path, repo_type="dataset", revision=revision))
    except (OSError, hub.errors.HTTPError) as error:
        raise DatasetError(
            f"{repository}: cannot download {path} ({type(error).__name__}: {_first_line(error)}). The same command "
            "continues. " + _advice(repository)
        ) from error


def ask_hub(name: str, revision: str | None) -> tuple[str, str]:
    """The commit and the license of a dataset: the first question, with a short patience."""
    hub = _huggingface_hub()
    try:
        info = hub.HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
    except hub.errors.RevisionNotFoundError as error:
        raise DatasetError(f"{name}: the hub has no revision {revision!r} of it. Give another --revision.") from error
    except hub.errors.RepositoryNotFoundError as error:
        raise DatasetError(
            f"{name}: the hub has no such dataset, or it is private (`hf auth login`). Names are OWNER/NAME."
        ) from error
    except hub.errors.HFValidationError as error:
        raise DatasetError(f"{name}: is no name of a dataset ({error}). Names are OWNER/NAME.") from error
    except (OSError, hub.errors.HTTPError) as error:
        raise DatasetError(
            f"{name}: the Hugging Face hub cannot be reached ({type(error).__name__}: {_first_line(error)}). "
            + _advice(name)
        ) from error
    card = info.card_data
    return info.sha, str(card.get("license") or "unknown") if card else "unknown"


def _data_files(name: str, subset: str | None, revision: str | None) -> dict[str, list[str]]:
    """Split -> files, as the `datasets` library finds them."""
    datasets = _datasets()
    try:
        builder = datasets.load_dataset_builder(name, subset, revision=revision)
    except (ValueError, OSError, RuntimeError) as error:  # an unknown or missing subset, no data, scripts
        raise DatasetError(
            f"{name}: {_first_line(error)}. Choose a subset: --subset NAME."
            if subset is None
            else f"{name}: has no usable subset {subset!r} ({_first_line(error)})."
        ) from error
    files = builder.config.data_files
    if not files:
        raise DatasetError(f"{name}: has no data files that could be read without running its code.")
    return {str(split): list(paths) for split, paths in files.items()}


def _fetch(file: str) -> Path:
    remote = REMOTE.fullmatch(file)
    if remote is None and "://" in file:
        raise DatasetError(
            f"{file}: is not on the hub, and only files of the hub are downloaded. Give it: --text FILE."
        )
    return download_file(remote["repository"], remote["path"], remote["revision"]) if remote else Path(file)


def _advice(repository: str) -> str:
    return (
        "Without a network: fetch the files elsewhere (`hf download "
        f"{repository} --repo-type dataset --local-dir DIR`) and give them: --text FILE... or --text DIR."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _has_subsets(folder: str) -> bool:
    """Whether a folder's README lists configurations; without, all that is in it is one dataset."""
    return _datasets().get_dataset_config_names(folder) != ["default"]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise _needs_hub("finding the files of a dataset") from error
    return datasets


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise _needs_hub("downloading") from error
    return huggingface_hub


def _needs_hub(what: str) -> ImportError:
    return ImportError(f"{what} needs the package datasets: pip install 'gpt-data[hub]'")

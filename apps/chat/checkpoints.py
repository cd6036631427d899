"""The checkpoints below a folder, by names that lead nowhere else."""

from pathlib import Path

from validation import Refused, is_unicode

from gpt_core.checkpoint.discovery import CheckpointError, runs_in
from gpt_core.generate import locate

MOST = 1000
"""Names listed."""


def list_names(root: Path) -> list[str]:
    """What can be loaded, relative to `root`: runs (their newest checkpoint), their checkpoints, nanoGPT's .pt files.

    The newest run comes first.
    """
    names = []
    for run in reversed(runs_in(root)):
        if not _inside(root, run / "checkpoints"):
            continue
        steps = sorted((run / "checkpoints").glob("step_*"), reverse=True)
        names += [run.name, *(step.relative_to(root).as_posix() for step in steps if (step / "meta.json").is_file())]
    names += sorted(path.relative_to(root).as_posix() for path in root.glob("**/*.pt") if path.is_file())
    return [name for name in names if is_unicode(name) and _inside(root, root / name)][:MOST]


def resolve(root: Path, name: str) -> Path:
    """The path that a name stands for. Refused with 403 for one that leads out of `root`, by dots or by a link."""
    if "\0" in name:
        raise Refused("a checkpoint's name holds no zero bytes", "checkpoint")
    path = root / name
    try:
        if not _inside(root, path):
            raise Refused(f"{name[:200]!r} is not below the folder of runs", "checkpoint", 403)
        found = path.exists()
    except (OSError, RuntimeError):  # a name that no file can have; links in a circle
        found = False
    if not found:
        raise Refused(f"there is no checkpoint {name[:200]!r}; GET /api/checkpoints lists them", "checkpoint", 404)
    known = (
        path.suffix == ".pt" if path.is_file() else (path / "checkpoints").is_dir() or (path / "meta.json").is_file()
    )
    if not known:
        raise Refused(f"{name[:200]!r} is neither a run, nor a checkpoint's folder, nor a .pt file", "checkpoint")
    try:
        found_at = path if path.is_file() else locate(path)[1]
    except CheckpointError as error:
        raise Refused(str(error), "checkpoint") from error
    if not _inside(root, found_at):
        raise Refused(f"the checkpoint of {name[:200]!r} is not below the folder of runs", "checkpoint", 403)
    return path


def _inside(root: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve()) and path.resolve() != root.resolve()

"""Saving and restoring a whole training state, on any number of ranks."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.checkpoint import atomic
from gpt_core.checkpoint.discovery import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    step_folder,
    step_of,
)
from gpt_core.checkpoint.model_file import load_weights, read_meta, weights_of, write_model
from gpt_core.checkpoint.optimizer_state import (
    destinations,
    optimizer_options,
    optimizer_tensors,
    restore_optimizer,
)
from gpt_core.checkpoint.rng import restore_rng_state, rng_state
from gpt_core.distributed import Distributed


class Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def save_checkpoint(
    run_dir: Path,
    step: int,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    data: Stateful,
    meta: Mapping[str, Any],
    distributed: Distributed,
    best: bool = False,
) -> Path:
    """Write `checkpoints/step_<step>` and point `latest` (and `best`) at it; collective, every rank calls it. Returns
    the folder.

    The folder appears under its name only when every rank's part is on disk. On failure what was written is removed,
    the older checkpoints stay, and every rank raises `CheckpointError`.
    """
    folder = step_folder(run_dir, step)
    partial = atomic.aside(folder)
    tensors = optimizer_tensors(model, optimizer)
    error: str | None = None
    try:
        weights = weights_of(model, keep=distributed.is_main)
        if distributed.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "state").mkdir(parents=True)
            options = optimizer_options(model, optimizer) | {"tensors": len(tensors)}
            write_model(partial, weights, {"step": step, "optimizer": options, **meta})
    except Exception as failure:  # whatever it is, all ranks must learn of it before any of them leaves
        error = f"{type(failure).__name__}: {failure}"
    _agree(distributed, error, folder)
    try:
        _write_state(partial / "state", tensors, distributed)
        own = {"rng": rng_state(distributed.device), "data": data.state_dict(), "world_size": distributed.world_size}
        with (partial / "state" / f"rank_{distributed.rank}.json").open("w", encoding="utf-8") as file:
            json.dump(own, file)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    _agree(distributed, error, folder)
    try:
        if distributed.is_main:
            atomic.publish(folder)
            if best:  # first, since a run killed in between is resumed from `latest`, and comes here again
                atomic.point(folder.with_name("best"), folder)
            atomic.point(folder.with_name("latest"), folder)
    except OSError as failure:
        error = str(failure)
    _agree(distributed, error, folder)
    return folder


def _agree(distributed: Distributed, error: str | None, folder: Path) -> None:
    """Raise on every rank if any rank failed, after removing what was written."""
    failed, *_ = distributed.sum([error is not None])
    if not failed:
        return
    if distributed.is_main:
        shutil.rmtree(atomic.aside(folder), ignore_errors=True)
    disk = folder.parent if folder.parent.exists() else folder.parent.parent
    free = shutil.disk_usage(disk).free / 1e9 if disk.exists() else 0.0
    raise CheckpointError(
        f"could not save {folder}: {error or 'another rank failed'}; {free:.2f} GB are free there. "
        "Earlier checkpoints are intact; free some space or set checkpoint.keep_last lower"
    )


@contextmanager
def _dcp() -> Generator[None]:
    """torch.distributed.checkpoint without its warning that one process is one process, and with errors that are
    `Exception`s: its own is a BaseException around them, which no handler would see."""
    from torch.distributed.checkpoint.api import CheckpointException

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.distributed.checkpoint")
        try:
            yield
        except CheckpointException as error:
            causes = [str(cause) or type(cause).__name__ for cause, _ in error.failures.values()]
            raise OSError("; ".join(dict.fromkeys(causes))) from error


def _write_state(folder: Path, tensors: dict[str, Any], distributed: Distributed) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    if not tensors:  # plain SGD has no state
        return
    with _dcp():
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        dcp.save(tensors, storage_writer=writer, no_dist=distributed.world_size == 1)


def saved_tensors(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and dtype of every tensor in the folder `state` of a checkpoint; {} for an optimizer without any."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    if not any(folder.glob("*.safetensors")):
        return {}
    saved = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {k: (v.size, v.properties.dtype) for k, v in saved.items() if isinstance(v, TensorStorageMetadata)}


def read_tensors(folder: Path, tensors: dict[str, Tensor], distributed: Distributed) -> None:
    """Read the folder `state` of a checkpoint into tensors of the saved shapes; collective."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    if not tensors:
        return
    with _dcp():
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(tensors, storage_reader=reader, no_dist=distributed.world_size == 1)


def _read_state(folder: Path, model: nn.Module, optimizer: Optimizer, distributed: Distributed) -> dict[str, Tensor]:
    saved = saved_tensors(folder)
    tensors = destinations(model, optimizer, saved) if saved else {}
    read_tensors(folder, tensors, distributed)
    return tensors


def load_checkpoint(
    checkpoint: Path,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    data: Stateful,
    distributed: Distributed,
) -> dict[str, Any]:
    """Restore weights, optimizer, data position and this rank's random state from a folder; returns its meta.

    Saved on another number of ranks: weights and optimizer state are resharded, and the data loader is asked to
    continue from rank 0's position, which it may refuse. Random state exists only for the ranks that saved one; a new
    rank keeps the one it was seeded with.
    """
    meta = read_meta(checkpoint)
    load_weights(model, checkpoint)
    try:
        tensors = _read_state(checkpoint / "state", model, optimizer, distributed)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many kinds; each means that this folder cannot be read
        raise CheckpointError(f"{checkpoint}/state is damaged ({error}); use another checkpoint of the run") from error
    expected = meta["optimizer"]["tensors"]
    if len(tensors) < expected:
        raise CheckpointError(
            f"{checkpoint}/state is incomplete: {len(tensors)} of the optimizer's {expected} tensors are there; "
            "use another checkpoint of the run"
        )
    restore_optimizer(model, optimizer, tensors, meta["optimizer"])
    own = checkpoint / "state" / f"rank_{distributed.rank}.json"
    position = own if own.exists() else own.with_name("rank_0.json")
    try:
        state = json.loads(position.read_text(encoding="utf-8"))
        data_state, rng = state["data"], state["rng"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{position} is damaged ({error}); use another checkpoint of the run") from error
    data.load_state_dict(data_state)
    if own.exists():
        restore_rng_state(rng, distributed.device)
    return meta


def prune(run_dir: Path, keep_last: int) -> list[Path]:
    """Delete all but the `keep_last` checkpoints saved last (0 keeps all); `best` and `latest` always stay. Returns the
    gone. What a killed process left half written or half deleted goes too, so no save may be under way.

    Steps beyond `latest` are what a run had before it was resumed from an earlier checkpoint: they are the oldest.
    """
    newest = step_of(find_checkpoint(run_dir)) if list_checkpoints(run_dir) else 0
    folders = sorted(list_checkpoints(run_dir), key=lambda p: (step_of(p) <= newest, step_of(p)))
    linked = {(run_dir / "checkpoints" / name).resolve() for name in ("latest", "best")}
    old = [] if keep_last == 0 else [p for p in folders[:-keep_last] if p.resolve() not in linked]
    for folder in old:
        gone = folder.with_name(f".{folder.name}.old")
        folder.rename(gone)  # so that a kill in the middle leaves no half checkpoint under a real name
        shutil.rmtree(gone)
    for leftover in (run_dir / "checkpoints").glob(".step_*"):
        shutil.rmtree(leftover)
    return old

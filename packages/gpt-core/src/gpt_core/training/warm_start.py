"""A new run's optimizer that begins with what another run's had learned about the gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.checkpoint import CheckpointError, read_meta
from gpt_core.checkpoint.model_file import clean_name, is_sharded, laid_out
from gpt_core.checkpoint.optimizer_state import SEPARATOR, optimizer_tensors, restore_optimizer
from gpt_core.checkpoint.training_state import read_tensors, saved_tensors
from gpt_core.distributed import Distributed
from gpt_core.models.convert.vocabulary import TABLES

SQUARES = ("exp_avg_sq",)
"""Entries that divide the update: zeros in them would make the first updates of a new token far too large."""


def warm_start(
    weights: str | Path | None, *, model: nn.Module, optimizer: Optimizer, first_new: int | None, ranks: Distributed
) -> str:
    """Take over the optimizer state of a checkpoint folder; returns what was done, in words. Collective.

    Moments, momenta and their counts are taken; rates, betas and decay stay as configured, as on a resume. first_new:
    tokens from here on are new to the model, which may have more rows than the checkpoint: their moments begin at
    zero, their squares at the mean of the known rows.
    Raises `CheckpointError` where there is no state, or that of another optimizer.
    """
    folder = None if weights is None else Path(weights)
    if folder is None or not (folder / "state").is_dir():
        raise CheckpointError(
            f"general.warm_start_optimizer is momenta, but {weights or 'a new model'} has no optimizer state; start "
            "from a checkpoint of a run (general.init_from), or use none"
        )
    saved, own = saved_tensors(folder / "state"), optimizer_tensors(model, optimizer)
    if own and (other := sorted(own.keys() ^ saved.keys())):
        raise CheckpointError(
            f"{folder} has the state of another optimizer ({', '.join(other[:3])}); configure the one of that run, or "
            "use general.warm_start_optimizer=none"
        )
    places = {clean_name(name): parameter.detach() for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    for key, (shape, dtype) in saved.items():
        like = own.get(key, places.get(key.rpartition(SEPARATOR)[0]))
        if like is None:
            raise CheckpointError(f"{folder} has optimizer state for {key!r}, which the new run's model does not have")
        if _is_table(key, shape) or like.shape != shape:
            tensors[key] = torch.zeros(shape, dtype=dtype)
        else:
            tensors[key] = own.get(key, torch.zeros_like(like, dtype=dtype))
    read_tensors(folder / "state", tensors, ranks)
    for key, (shape, _) in saved.items():
        if _is_table(key, shape):
            like = own.get(key, places[key.rpartition(SEPARATOR)[0]])
            whole = _with_new_rows(tensors[key], len(like), first_new, key.endswith(SQUARES))
            tensors[key] = _placed(whole, like, own.get(key))
    restore_optimizer(model, optimizer, tensors, read_meta(folder)["optimizer"])
    return f"the optimizer begins with the state of {folder} ({len(tensors)} tensors), at its own learning rates"


def _is_table(key: str, shape: torch.Size) -> bool:
    """Whether the state has a row for each token."""
    name = key.rpartition(SEPARATOR)[0]
    return len(shape) == 2 and TABLES.fullmatch(name) is not None


def _with_new_rows(table_VD: Tensor, rows: int, first_new: int | None, is_square: bool) -> Tensor:
    known = table_VD[: len(table_VD) if first_new is None else first_new]
    grown = table_VD.new_zeros(rows, table_VD.shape[1])
    if is_square:
        grown += known.mean(0)
    grown[: len(known)] = known
    return grown


def _placed(whole: Tensor, like: Tensor, own: Tensor | None) -> Tensor:
    """`whole` on the device of `like`, this rank's part of it where that is sharded; in `own` where there is one."""
    there = laid_out(whole, like) if is_sharded(like) else whole.to(like.device)
    if own is None:
        return there
    if is_sharded(own):
        own.to_local().copy_(there.to_local())  # ty: ignore[missing-attribute]
    else:
        own.copy_(there)
    return own

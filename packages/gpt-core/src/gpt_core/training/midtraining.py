"""The configuration of a mid-training run: that of the run that it starts from, and on top what it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from gpt_core.checkpoint import CheckpointError
from gpt_core.config import Config, load_config
from gpt_core.config.aliases import ALIASES, Aliases
from gpt_core.config.files import RUN_CONFIG
from gpt_core.config.overrides import Arguments, parse
from gpt_core.training.config import GeneralConfig
from gpt_core.training.recipe import RESUME, SCHEMA, choose_run, run_of, weights_to_start_from

MIDTRAINING_ALIASES: Aliases = {
    **ALIASES,
    "checkpoint": "general.init_from",
    "data": "data.module_kwargs.dataset",
}
DEFAULT = "chat"
"""The configuration that is used where none is named."""
WITHOUT_RUN = "weights"
"""What lies below it where weights come without the configuration of a run."""


class NoCheckpoint(CheckpointError):
    """Mid-training was not told what to start from, or it is not there."""

    exit_status = 2
    """Of an app that ends with it (`gpt_core.exit_status`)."""


def load_midtraining(
    argv: Sequence[str],
    *,
    config_dirs: Sequence[Path],
    clock: datetime | None = None,
    base: Path | None = None,
) -> Config:
    """Read the command line of a mid-training run; `argv` is without the program's name.

    Below the named configurations (`chat` if none is) lies the `config.yaml` of the run that the checkpoint is of, so
    that model, batch, optimizer and its rates are those of the first training; for weights without a run, `weights`.
    base: a file in place of that run's.
    Raises `NoCheckpoint` where there is nothing to start from, `ConfigError` for the rest.
    """
    load = partial(load_config, schema=SCHEMA, config_dirs=config_dirs, aliases=MIDTRAINING_ALIASES, clock=clock)
    arguments = parse(argv)
    named = [] if arguments.positionals else [DEFAULT]
    if arguments.help:
        return load([WITHOUT_RUN, *named, *argv])
    if base is None:
        general = _general(arguments, load)
        if general.init_from in RESUME:
            return load([str(choose_run(general, clock or datetime.now()) / RUN_CONFIG), *argv])
        base = run_config(general)
    return load([WITHOUT_RUN if base is None else str(base), *named, *argv])


def _general(arguments: Arguments, load: Callable[..., Config]) -> GeneralConfig:
    """What says where to start from; the rest of the command line may only make sense on top of that run."""
    general = load([WITHOUT_RUN, *(arguments.positionals or [DEFAULT])]).section("general")
    given = {each.key.rpartition(".")[2]: str(each.value) for each in arguments.overrides}
    source = given.get("checkpoint", given.get("init_from", general.init_from))
    return replace(
        general,
        init_from=source,
        out_dir=given.get("out_dir", general.out_dir),
        run_name=given.get("run_name", general.run_name),
    )


def run_config(general: GeneralConfig) -> Path | None:
    """The configuration of the run that `general.init_from` means; None for weights that are of no run."""
    if general.init_from == "scratch":
        raise NoCheckpoint(
            "mid-training starts from a trained model: name one with --checkpoint RUN, CHECKPOINT_FOLDER, ckpt.pt, or "
            "a Hugging Face folder"
        )
    try:
        weights = weights_to_start_from(general)
    except CheckpointError as error:
        raise NoCheckpoint(f"--checkpoint {general.init_from}: {error}") from error
    run = run_of(weights)
    return run / RUN_CONFIG if run and (run / RUN_CONFIG).is_file() else None

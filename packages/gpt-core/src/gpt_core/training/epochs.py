"""How many steps an epoch is."""

from __future__ import annotations

from gpt_core.config import Config
from gpt_core.config.overrides import COMMAND_LINE
from gpt_core.scaling.horizon import epochs_of, steps_of_epochs
from gpt_core.scaling.resolve import ACCUMULATION, BATCH, DEVICE_BATCH, EPOCHS, STEPS, by_epochs, look_at, origin_of
from gpt_core.training.accumulation import plan_batches

STEPS_OF_EPOCH = 10
"""With `auto` a step takes in no more than so large a part of the data (measured: docs/midtraining.md)."""


def with_steps_of_epochs(config: Config, world_size: int) -> Config:
    """`config` with the steps of its epochs, where these say how long a run is (`by_epochs`).

    Opens the data to see how long it is. ValueError for data without a length.
    """
    if not by_epochs(config):
        return config
    training = config.section("training")
    epoch_tokens = look_at(config).epoch_tokens
    if epoch_tokens is None:
        raise ValueError(
            f"training.epochs is set, but {config.component('data').path} has no length; set training.max_steps instead"
        )
    if training.epochs == "auto":
        config = _with_small_steps(config, epoch_tokens, world_size)
    tokens = plan_batches(config.section("training"), world_size).tokens
    epochs = epochs_of(training.epochs, epoch_tokens, tokens)
    why = f"training.epochs={training.epochs}: {epochs:g} passes over {epoch_tokens:,} tokens, {tokens:,} a step"
    return config.changed({EPOCHS: epochs, STEPS: steps_of_epochs(epochs, epoch_tokens, tokens)}, why)


def _with_small_steps(config: Config, epoch_tokens: int, world_size: int) -> Config:
    """At least STEPS_OF_EPOCH steps in an epoch, or one sequence of each process; the command line's batch stays."""
    training = config.section("training")
    plan = plan_batches(training, world_size)
    each = max(1, epoch_tokens // (STEPS_OF_EPOCH * plan.context_length * world_size))
    said_so = any(origin_of(config, key) == COMMAND_LINE for key in (DEVICE_BATCH, BATCH, ACCUMULATION))
    if said_so or plan.sequences <= each * world_size:
        return config
    size = min(plan.device_batch_size, each)
    values = {DEVICE_BATCH: size, BATCH: each // size * size * world_size, ACCUMULATION: None}
    return config.changed(values, f"training.epochs=auto: {STEPS_OF_EPOCH} steps in an epoch")


def said(config: Config) -> str | None:
    """How long a run of epochs is and why; None where something else decided."""
    origin = origin_of(config, STEPS) or ""
    return f"{config.section('training').max_steps} steps: {origin}" if origin.startswith(EPOCHS) else None

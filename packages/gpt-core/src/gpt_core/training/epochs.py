"""How many steps an epoch is."""

from __future__ import annotations

from gpt_core.config import Config
from gpt_core.scaling.horizon import epochs_of, steps_of_epochs
from gpt_core.scaling.resolve import EPOCHS, STEPS, by_epochs, look_at, origin_of
from gpt_core.training.accumulation import plan_batches


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
    plan = plan_batches(training, world_size)
    epochs = epochs_of(training.epochs, epoch_tokens, plan.tokens)
    steps = steps_of_epochs(epochs, epoch_tokens, plan.tokens)
    why = f"training.epochs={training.epochs}: {epochs:g} passes over {epoch_tokens:,} tokens, {plan.tokens:,} a step"
    if plan.tokens > epoch_tokens:
        smaller = max(1, epoch_tokens // (4 * plan.context_length))
        why += f", which is more than all data: --batch_size=1 --global_batch_size={smaller} would learn more of it"
    return config.changed({EPOCHS: epochs, STEPS: steps}, why)


def said(config: Config) -> str | None:
    """How long a run of epochs is and why; None where something else decided."""
    origin = origin_of(config, STEPS) or ""
    return f"{config.section('training').max_steps} steps: {origin}" if origin.startswith(EPOCHS) else None

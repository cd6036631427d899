"""How many steps an epoch is."""

from __future__ import annotations

from typing import Any

from gpt_core.config import Config
from gpt_core.training.accumulation import plan_batches


def steps_of_epochs(epochs: float, tokens: int, tokens_per_step: int) -> int:
    """The whole number of steps nearest to `epochs` passes over `tokens`, at least one."""
    return max(1, round(epochs * tokens / tokens_per_step))


def with_steps_of_epochs(config: Config, world_size: int) -> Config:
    """`config`, where training.max_steps is 0 and training.epochs set, with as many steps as these are.

    Opens the data to see how long it is. ValueError for data without a length.
    """
    training = config.section("training")
    if training.epochs is None or training.max_steps:
        return config
    plan = plan_batches(training, world_size)
    splits = config.component("data").build(
        context_length=plan.context_length,
        device_batch_size=plan.device_batch_size,
        rank=0,
        world_size=world_size,
        seed=config.section("general").seed,
    )
    steps = steps_of_epochs(training.epochs, _tokens(splits, plan.device_batch_size * world_size), plan.tokens)
    return config.changed({"training.max_steps": steps}, f"training.epochs = {training.epochs:g}")


def _tokens(splits: Any, rows_per_batch: int) -> int:
    """Tokens of the training split: as the dataset counts them, else as many as its batches hold."""
    count = getattr(splits.dataset, "tokens", None)
    if callable(count):
        return count("train")
    batches = getattr(splits.train, "batches_per_epoch", None)
    if batches is None:
        raise ValueError(
            f"training.epochs is set, but {splits.dataset.name} has no length; set training.max_steps instead"
        )
    return batches * rows_per_batch * splits.train.context_length

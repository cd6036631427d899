"""How many micro-steps make one optimizer step. One meaning everywhere: both settings are global, over all
processes."""

from __future__ import annotations

from dataclasses import dataclass

from gpt_core.training.config import TrainingConfig


@dataclass(frozen=True)
class BatchPlan:
    """Sizes of one optimizer step."""

    device_batch_size: int
    """Sequences per micro-step and process."""
    micro_steps: int
    """Micro-steps per process."""
    world_size: int
    context_length: int

    @property
    def sequences(self) -> int:
        """Sequences per optimizer step, over all processes."""
        return self.device_batch_size * self.micro_steps * self.world_size

    @property
    def tokens(self) -> int:
        """Tokens per optimizer step, over all processes."""
        return self.sequences * self.context_length


def plan_batches(config: TrainingConfig, world_size: int) -> BatchPlan:
    """Work out the micro-steps per process from `global_batch_size` or `gradient_accumulation_steps`."""
    total = config.gradient_accumulation_steps
    if total is not None and config.global_batch_size is not None:
        raise ValueError(
            "training.gradient_accumulation_steps and training.global_batch_size say the same thing twice "
            f"(got {total} and {config.global_batch_size}); set one to null"
        )
    if total is not None:
        if total % world_size:
            raise ValueError(
                f"training.gradient_accumulation_steps counts the micro-steps of all processes together: {total} "
                f"cannot be shared by {world_size} processes; use a multiple of {world_size}, or "
                "training.global_batch_size"
            )
        micro_steps = total // world_size
    elif config.global_batch_size is not None:
        micro_steps = max(1, round(config.global_batch_size / config.device_batch_size / world_size))
    else:
        micro_steps = 1
    return BatchPlan(config.device_batch_size, micro_steps, world_size, config.context_length)

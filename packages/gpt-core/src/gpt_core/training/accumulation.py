"""How many micro-steps make one optimizer step. One meaning everywhere: both settings are global, over all
processes."""

from __future__ import annotations

from dataclasses import dataclass

from gpt_core.training.config import TrainingConfig

MOST_ROUNDING = 0.1


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
    """Work out the micro-steps per process from `global_batch_size` or `gradient_accumulation_steps`.

    Sequences are rounded to whole micro-steps of all processes. More than a tenth is an error, not a warning: the
    learning rate and the number of steps were chosen for the batch, and who starts a run on more processes means it to
    be the same run.
    """
    total, wanted, size = config.gradient_accumulation_steps, config.global_batch_size, config.device_batch_size
    if total is not None and wanted is not None:
        raise ValueError(
            "training.gradient_accumulation_steps and training.global_batch_size say the same thing twice "
            f"(got {total} and {wanted}); set one to null"
        )
    if total is not None and total % world_size:
        exact = exact_sizes(total * size, world_size, size)
        raise ValueError(
            f"training.gradient_accumulation_steps counts the micro-steps of all processes together: {total} "
            f"cannot be shared by {world_size} processes; use a multiple of {world_size}, or "
            "training.global_batch_size"
            + (
                f" (training.device_batch_size={exact[0]} with training.gradient_accumulation_steps="
                f"{exact[1] * world_size} is the same step of {total * size} sequences)"
                if exact
                else ""
            )
        )
    if total is not None:
        micro_steps = total // world_size
    elif wanted is not None:
        micro_steps = max(1, round(wanted / size / world_size))
    else:
        micro_steps = 1
    plan = BatchPlan(size, micro_steps, world_size, config.context_length)
    if wanted is not None and abs(plan.sequences - wanted) > MOST_ROUNDING * wanted:
        exact = exact_sizes(wanted, world_size, size)
        raise ValueError(
            f"training.global_batch_size is {wanted}, but {world_size} processes with training.device_batch_size="
            f"{size} would take {plan.sequences} sequences in a step, for which the learning rate was not chosen; use "
            + (f"training.device_batch_size={exact[0]}, or " if exact else "")
            + f"training.global_batch_size={plan.sequences} if that is what you want, or let it be aligned "
            f"(--total-batch-size={wanted * config.context_length})"
        )
    return plan


def exact_sizes(sequences: int, world_size: int, most: int) -> tuple[int, int] | None:
    """(device batch size up to `most`, micro-steps per process) that give exactly `sequences`; None if none do."""
    share, rest = divmod(sequences, world_size)
    if rest:
        return None
    size = max(size for size in range(1, most + 1) if share % size == 0)
    return size, share // size

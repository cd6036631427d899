"""A step of so many tokens from whole micro-steps of all processes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    device_batch_size: int
    """Sequences per micro-step and process."""
    micro_steps: int
    """Per process."""
    tokens: int
    """Over all processes."""
    note: str | None = None
    """What had to be changed, and why."""
    realigned: bool = False
    """The tokens are not the ones asked for."""


def align(tokens: int, device_batch_size: int, context_length: int, world_size: int, strict: bool = False) -> Step:
    """The step of `tokens` with the largest device batch up to `device_batch_size` of which it is a multiple.

    Where there is none (three processes, 2**19 tokens) the tokens become the nearest multiple of a micro-step, of one
    no larger than the step itself where that is possible. ValueError if `strict`: device batch and tokens must fit as
    they are; it lists those that do.
    """
    for name, value in (("total_batch_size", tokens), ("device_batch_size", device_batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    row = context_length * world_size  # one sequence on every process
    share, rest = divmod(tokens, row)
    if not rest and share % device_batch_size == 0:
        return Step(device_batch_size, share // device_batch_size, tokens)
    if strict:
        raise ValueError(_choices(tokens, device_batch_size, context_length, world_size))
    if not rest:
        size = max(size for size in range(1, min(device_batch_size, share) + 1) if share % size == 0)
        note = (
            f"device batch {device_batch_size} -> {size} sequences: the largest that makes {tokens:,} tokens in whole "
            f"micro-steps of {world_size} x {context_length} tokens per sequence"
        )
        return Step(size, share // size, tokens, note)
    size = min(device_batch_size, max(1, share))
    micro_steps = max(1, round(tokens / (size * row)))
    aligned = micro_steps * size * row
    note = (
        f"total batch {tokens:,} -> {aligned:,} tokens: {world_size} processes of whole sequences of {context_length} "
        f"tokens cannot make {tokens:,}; this is the nearest multiple of {size * row:,} (device batch {size}). "
        "Learning rates and the number of steps follow it"
    )
    return Step(size, micro_steps, aligned, note, realigned=True)


def _choices(tokens: int, device_batch_size: int, context_length: int, world_size: int) -> str:
    row = context_length * world_size
    unit = device_batch_size * row
    totals = sorted({max(unit, tokens // unit * unit), -(-tokens // unit) * unit})
    share, rest = divmod(tokens, row)
    sizes = [] if rest else [size for size in range(1, min(device_batch_size, share) + 1) if share % size == 0]
    fits = f"device batches that make {tokens:,}: {', '.join(map(str, sizes))}" if sizes else "no device batch does"
    return (
        f"scaling.strict_batch: {tokens:,} tokens are no whole number of micro-steps of {device_batch_size} sequences "
        f"x {context_length} tokens x {world_size} processes = {unit:,} tokens; {fits}; total batches for this device "
        f"batch: {' or '.join(f'{total:,}' for total in totals)}. Set one of them, or leave strict_batch off"
    )

"""What one row asks of a model that scores."""

from collections.abc import Sequence
from typing import NamedTuple

from gpt_eval.truncation import Fitted


class Asked(NamedTuple):
    """Spans to score, one per choice."""

    requests: tuple[tuple[list[int], list[int]], ...]
    """(context ids, continuation ids) of the choices that have a span."""
    spans: tuple[int | None, ...]
    """Per choice the number of its request; None for a choice without a token of its own, which never wins."""
    truncated: bool = False
    unscored: str | None = None
    """Why nothing can be scored; then there are no requests."""


def asked(fitted: Sequence[Fitted | None]) -> Asked:
    """Collects what is asked about each choice; None for an empty span."""
    requests = [one for one in fitted if one is not None]
    numbers = iter(range(len(requests)))
    return Asked(
        requests=tuple((one.context, one.continuation) for one in requests),
        spans=tuple(None if one is None else next(numbers) for one in fitted),
        truncated=any(one.truncated for one in requests),
    )


def not_asked(reason: str, choices: int, *, truncated: bool) -> Asked:
    """A row that cannot be scored, and why."""
    return Asked(requests=(), spans=(None,) * choices, truncated=truncated, unscored=reason)

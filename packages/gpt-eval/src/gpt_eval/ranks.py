"""The processes that share an evaluation: item i goes to rank i mod world size, records come back to every rank."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from gpt_eval.errors import EvaluationError

T = TypeVar("T")


class Ranks(Protocol):
    """One process's place among those that evaluate together."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value (picklable), in the order of ranks, on every rank. Collective."""
        ...


class OneProcess:
    """Evaluates alone."""

    rank = 0
    world_size = 1

    def gather(self, value: Any) -> list[Any]:
        return [value]


class TorchRanks:
    """The processes of torch.distributed, which somebody has initialized; with a backend for the CPU it uses that.

    group: a process group; None is the one of all processes.
    """

    def __init__(self, group: Any = None):
        from torch import distributed as dist

        if not dist.is_initialized():
            raise ValueError("TorchRanks needs torch.distributed.init_process_group; one process alone needs no ranks")
        self._group, self._dist = group, dist
        self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world_size
        self._dist.all_gather_object(values, value, group=self._group)
        return values


def together(ranks: Ranks, action: Callable[[], T]) -> T:
    """`action()` of this rank. Where it raises on any rank (ValueError, OSError, ImportError), every rank raises.

    So none waits in a collective for one that has stopped: the others raise EvaluationError with the same message.
    Collective.
    """
    result: Any = None
    error: Exception | None = None
    try:
        result = action()
    except (ValueError, OSError, ImportError) as raised:
        error = raised
    messages = ranks.gather(None if error is None else str(error))
    if error is not None:
        raise error
    message = next((message for message in messages if message is not None), None)
    if message is not None:
        raise EvaluationError(message)
    return result


def from_first(ranks: Ranks, action: Callable[[], T]) -> T:
    """What `action` returns, or raises, on rank 0; no other rank calls it. Collective."""
    result: Any = together(ranks, lambda: action() if ranks.rank == 0 else None)
    return ranks.gather(result)[0]

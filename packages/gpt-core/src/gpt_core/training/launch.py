"""From a command line to processes that agree on their configuration."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from gpt_core.config import Config
from gpt_core.distributed import Distributed, distributed


class Launch(NamedTuple):
    """What `gpt_core.training.run.run` begins with."""

    config: Config
    ranks: Distributed
    clock: datetime
    """When the run began, equal on all ranks."""


@contextmanager
def launched(load: Callable[..., Config]) -> Generator[Launch]:
    """Set up the processes that the launcher has started.

    load: reads the configuration, `load(clock=...)` with a clock. It is called twice: to know how the processes talk,
    and with the clock of rank 0, so that `_time` is the same on all. The environment gets what the configuration
    exports. Collective.
    """
    config = load()
    general, parallel = config.section("general"), config.section("parallel")
    with distributed(general.device, parallel.backend, parallel.timeout_minutes) as ranks:
        clock = ranks.broadcast(datetime.now())
        config = load(clock=clock)
        config.export_env()
        yield Launch(config, ranks, clock)

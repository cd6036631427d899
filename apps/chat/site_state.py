"""What the server's routes share: the model that is served, the checkpoints that may be, and how to change it."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from checkpoints import list_names, resolve
from hall import Hall
from loading import How, Loaded, load
from metrics import Metrics
from speaker import Speaker
from validation import Defaults, Refused
from worker import Worker

_log = logging.getLogger(__name__)


@dataclass
class Site:
    """A running server's state. The event loop's thread alone changes it."""

    hall: Hall
    root: Path
    """Folder of runs; no checkpoint outside it is ever opened."""
    devices: list[str]
    """One replica of the model on each."""
    how: How
    rows: int
    prefix_bytes: int
    may_load: bool = True
    """Whether clients may change the model."""
    defaults: Defaults = field(default_factory=Defaults)
    metrics: Metrics = field(default_factory=Metrics)
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def loaded(self) -> Loaded:
        return self.hall.workers[0].loaded

    def checkpoints(self) -> list[str]:
        """Names of what can be loaded."""
        return list_names(self.root)

    async def change_model(self, name: str) -> Loaded:
        """Load a checkpoint and serve it from now on; answers under way are finished by the old model.

        Refused where that cannot be; the old model then stays.
        """
        if not self.may_load:
            raise Refused("this server keeps the model that it was started with (--fixed)", "checkpoint", 403)
        path = resolve(self.root, name)
        async with self.changing:
            try:
                workers = await asyncio.to_thread(self._start, path, name)
            except Exception as error:  # a damaged file can fail in any way, and the old model must stay
                _log.info("%s could not be loaded", name, exc_info=error)
                raise Refused(
                    f"{name} could not be loaded, and {self.loaded.name} stays: {error}", "checkpoint"
                ) from error
            self.hall.swap(workers)
        return self.loaded

    def _start(self, path: Path, name: str) -> list[Worker]:
        return start_workers(path, "latest", self.how, self.devices, self.rows, self.prefix_bytes, name)


def start_workers(
    path: str | Path,
    checkpoint: str,
    how: How,
    devices: list[str],
    rows: int,
    prefix_bytes: int,
    name: str | None = None,
) -> list[Worker]:
    """A replica of a checkpoint's model on every device; all write prompts the same way.

    ValueError (and others of `load`) where that cannot be, also for want of a GPU's memory.
    """
    workers: list[Worker] = []
    try:
        replicas = [load(path, checkpoint, how.on(device), name) for device in devices]
        speaker = Speaker(replicas[0])
        for number, loaded in enumerate(replicas):
            workers.append(Worker(number, loaded, speaker, rows, prefix_bytes))
        return workers
    except torch.OutOfMemoryError as error:
        for worker in workers:
            worker.close()
        raise ValueError(
            f"{path} and the keys and values of {rows} answers do not fit on {', '.join(devices)}: "
            f"choose fewer --rows or --dtype bfloat16 ({error})"
        ) from error

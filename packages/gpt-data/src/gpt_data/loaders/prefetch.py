"""Batches made ahead by a background thread, in page-locked memory where there is a GPU."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..batch import Batch
from .base import Loader, Rows

POLL_SECONDS = 1.0
"""How often a thread that waits for room looks whether its loader is still wanted."""
EXIT_SECONDS = 5.0
"""How long the end of the program waits for a thread."""


def prefetched(loader: Loader, depth: int) -> Loader:
    """`loader`, `depth` batches ahead; the loader itself with depth 0."""
    if depth < 0:
        raise ValueError(f"prefetch is {depth}, expected a number of batches, 0 for none.")
    return Prefetch(loader, depth) if depth else loader


@dataclass(frozen=True)
class _Made:
    """A batch, and the state of the loader after it."""

    batch: Batch | None
    state: dict[str, Any] | None = None
    error: BaseException | None = None


class Prefetch(Loader):
    """The same batches as `loader`, made by a thread while the model computes.

    The state is that of the batches handed out, not of those made ahead, so a run resumes exactly. An error of the
    loader is raised by the `next` that would have returned the batch. The thread starts with the first batch and ends
    with this object.
    """

    def __init__(self, loader: Loader, depth: int) -> None:
        super().__init__(loader.context_length, loader.device_batch_size, loader.rank, loader.world_size, loader.seed)
        self.loader, self.depth = loader, depth
        self._state = loader.state_dict()
        self._made: queue.Queue[_Made] | None = None
        self._end: Callable[..., None] | None = None

    @property
    def vocab_size(self) -> int:
        return self.loader.vocab_size

    @property
    def where(self) -> str:
        return self.loader.where

    @property
    def batches_per_epoch(self) -> int:
        return self.loader.batches_per_epoch

    @property
    def batch_shape(self) -> tuple[int, int]:
        return self.loader.batch_shape

    def next_rows(self) -> Rows:
        raise NotImplementedError("a prefetched loader hands out whole batches; use `.loader`")

    def identity(self) -> dict[str, Any]:
        return self.loader.identity()

    def __next__(self) -> Batch:
        if self._made is None:
            self._start()
        assert self._made is not None
        made = self._made.get()
        if made.error is not None:
            self.close()
            raise made.error
        assert made.batch is not None and made.state is not None
        self._state = made.state
        return made.batch

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        self.loader.load_state_dict(state)
        self._state = self.loader.state_dict()

    def close(self) -> None:
        """End the thread; what it made ahead is forgotten, and made again by the next `next`."""
        if self._made is None or self._end is None:
            return
        self._at_exit.detach()  # it would keep what was made ahead as long as this object lives
        self._end(patience=None)
        self._end = self._made = None
        self.loader.load_state_dict(self._state)

    def _start(self) -> None:
        import torch

        made: queue.Queue[_Made] = queue.Queue(self.depth)
        wanted = threading.Event()
        wanted.set()
        arguments = (self.loader, made, wanted, torch.cuda.is_available())
        thread = threading.Thread(target=_make, args=arguments, name="prefetch", daemon=True)
        thread.start()
        # Also at the interpreter's exit: a thread that is still in C++ code when Python ends aborts the process.
        self._at_exit = weakref.finalize(self, _end, thread, made, wanted, EXIT_SECONDS)
        self._made, self._end = made, partial(_end, thread, made, wanted)


def _end(thread: threading.Thread, made: queue.Queue[_Made], wanted: threading.Event, patience: float | None) -> None:
    """Make the thread end and wait for it, at most `patience` seconds (it may be waiting for a network)."""
    wanted.clear()
    if thread is threading.current_thread():  # the garbage collector ran in it
        return
    until = math.inf if patience is None else time.monotonic() + patience
    while thread.is_alive() and time.monotonic() < until:
        with suppress(queue.Empty):  # it may be waiting for room
            made.get_nowait()
        thread.join(0.01)


def _make(loader: Loader, made: queue.Queue[_Made], wanted: threading.Event, pin: bool) -> None:
    """What the thread does. It knows the loader and not its `Prefetch`, which would otherwise live as long as it."""
    while wanted.is_set():
        try:
            batch = next(loader)
            item = _Made(batch.pin_memory() if pin else batch, loader.state_dict())
        except BaseException as error:  # raised where the batch is asked for
            item = _Made(None, error=error)
        while wanted.is_set():
            try:
                made.put(item, timeout=POLL_SECONDS)
                break
            except queue.Full:
                continue
        if item.error is not None:
            return

"""Stopping a run at a step boundary."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self


class StopRequest:
    """Within the context, Ctrl-C and SIGTERM set `requested`, and the loop ends after the step it is in.

    A second Ctrl-C interrupts at once. SIGTERM never does: torchrun sends one to every rank right after a Ctrl-C. It
    also sends one after a failure; a rank that does not get to the end of its step then is ended by its `Alarm`.
    Outside the main thread, where Python delivers no signals, it stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

"""How far an evaluation is, and how long it will still take."""

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO


class Progress(Protocol):
    """Told how an evaluation goes on. Work is counted in tokens: items of long prompts take longer."""

    def start(self, total: int) -> None:
        """Before the first item: tokens of all items still to do, on this rank."""
        ...

    def update(self, label: str, tokens: int) -> None:
        """`tokens` more are done, of the task with this label."""
        ...

    def finish(self) -> None: ...


class Silent:
    """Says nothing."""

    def start(self, total: int) -> None: ...
    def update(self, label: str, tokens: int) -> None: ...
    def finish(self) -> None: ...


class ConsoleProgress:
    """A line that is rewritten on a terminal; elsewhere a line every half minute and at each new task.

    The time left is (time so far) / (tokens so far) * (tokens to go).
    """

    def __init__(
        self, stream: TextIO | None = None, every_seconds: float = 30.0, clock: Callable[[], float] = time.monotonic
    ):
        self._stream = sys.stderr if stream is None else stream
        self._live, self._every, self._clock = self._stream.isatty(), every_seconds, clock
        self._label = ""

    def start(self, total: int) -> None:
        self._total, self._done = max(total, 1), 0
        self._started = self._said = self._clock()

    def update(self, label: str, tokens: int) -> None:
        self._done += tokens
        now = self._clock()
        if not self._live and label == self._label and now - self._said < self._every:
            return
        self._label, self._said = label, now
        share = min(self._done / self._total, 1.0)
        left = (now - self._started) * (1 - share) / share if share else float("nan")
        text = f"{share:4.0%}  {label}  {readable(left)} left"
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._stream.flush()

    def finish(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def readable(seconds: float) -> str:
    """1 h 02 min, 3 min 20 s, 12 s; ? for NaN."""
    if seconds != seconds:
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"

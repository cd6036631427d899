"""Progress on stderr: one line that rewrites itself on a terminal, a line per phase and per minute elsewhere."""

from __future__ import annotations

import sys
import threading
import time

REFRESH_SECONDS = 0.2
LOG_SECONDS = 60.0
"""Between two lines where nothing can be rewritten: a job's log file."""


class Progress:
    """label: begins every line; quiet: say nothing at all."""

    def __init__(self, label: str, quiet: bool = False) -> None:
        self.label, self.quiet = label, quiet
        self._live = not quiet and sys.stderr.isatty()
        self._lock = threading.Lock()
        self.phase("", 0, announce=False)

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            print(f"{self._clear()}{self.label}: {text}", file=sys.stderr, flush=True)

    def phase(self, name: str, total: int, already: int = 0, announce: bool = True) -> None:
        """Begin a phase over `total` bytes, of which an earlier run did `already`."""
        self._name, self._total, self._done, self._already = name, total, already, already
        self._began = self._shown = time.monotonic()
        if announce and not self._live:
            resumed = f", {already / 1e6:.1f} MB of it already done" if already else ""
            self.say(f"{name} {total / 1e6:.1f} MB{resumed}")

    def advance(self, count: int) -> None:
        """`count` more bytes are done; any thread may call this."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if self.quiet or now - self._shown < (REFRESH_SECONDS if self._live else LOG_SECONDS):
                return
            self._shown = now
            print(f"{self._clear()}{self._line(now)}", end="" if self._live else "\n", file=sys.stderr, flush=True)

    def _line(self, now: float) -> str:
        fresh = self._done - self._already
        left = (now - self._began) / fresh * (self._total - self._done) if fresh > 0 else 0.0
        return (
            f"{self.label}: {self._name} {self._done / max(self._total, 1):4.0%}  {self._done / 1e6:.1f} of "
            f"{self._total / 1e6:.1f} MB, {duration(left)} left"
        )

    def _clear(self) -> str:
        return "\r\x1b[K" if self._live else ""


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

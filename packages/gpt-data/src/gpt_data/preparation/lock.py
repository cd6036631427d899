"""One preparer at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(path: Path, say: Callable[[str], None]) -> Generator[None]:
    """Hold the lock file `path`. The system releases it however the process ends, kill -9 included."""
    import fcntl  # not on Windows, where datasets can still be read

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process is preparing it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""How the processes of a run end together when one of them fails, and which of them says why."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback

import torch.distributed as dist

FIRST = "first"
GRACE_SECONDS = 10.0  # for a rank to find out by itself, in a collective that breaks
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL", "store")


class Alarm:
    """A note in the ranks' common store: who failed first, and of what. That rank speaks, the others leave quietly.

    A thread looks at it once a second, because a rank that waits for a dead one in an NCCL kernel, or computes on its
    own, learns of nothing: after `GRACE_SECONDS` the thread ends the process.
    """

    def __init__(self, store: dist.Store, rank: int):
        self.store, self.rank = dist.PrefixStore("failure", store), rank
        self._ours: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="alarm", daemon=True)
        self._thread.start()

    def explain(self, error: BaseException) -> str:
        """What ended the run, in a sentence: `error`, or what another rank had reported before."""
        if self._ours is None:
            lost = isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)
            if lost:
                text = f"rank {self.rank} lost contact with another rank, which was killed or whose machine is gone"
            else:
                text = f"rank {self.rank} failed: {type(error).__name__}: {error}"
            self._ours = self._first(text, wait=3.0 if lost else 0.0)
        return self._ours

    def report(self, error: BaseException) -> None:
        """Print the reason, on the rank that knows it; a traceback where the error is not the user's to mend."""
        text = self.explain(error)
        if not text.startswith(f"rank {self.rank} "):
            return
        if "failed:" in text and not isinstance(error, (ValueError, OSError)):
            text = f"{''.join(traceback.format_exception(error))}{text}"
        print(f"error: {text}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _first(self, text: str, wait: float) -> str:
        """The first text that a rank has left; `text` itself if nobody does within `wait` seconds."""
        try:
            until = time.monotonic() + wait
            while time.monotonic() < until and not self.store.check([FIRST]):
                time.sleep(0.1)
            return self.store.compare_set(FIRST, "", text).decode()
        except RuntimeError:  # the rank that kept the store is the one that is gone
            return text

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            try:
                failed = self.store.check([FIRST])
            except RuntimeError:
                failed = True
            if failed:
                if not self._ended.wait(GRACE_SECONDS):
                    os._exit(1)
                return

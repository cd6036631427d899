"""How the processes of a run end together when one of them fails, and which of them says why."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback

import torch.distributed as dist

from gpt_core.contact import Contact

FIRST = "first"
GRACE_SECONDS = 10.0  # for a rank to find out by itself, in a collective that breaks
LOST = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL", "store")


class Alarm:
    """A note in the ranks' common store: who failed first, and of what. That rank speaks, the others leave quietly.

    A rank that was killed leaves no note: rank 0, or the others if it is rank 0, see that its connections are closed
    (`Contact`) and leave one. A thread looks at both once a second, because a rank that waits for a dead one in an NCCL
    kernel, or computes on its own, learns of nothing: after `GRACE_SECONDS` the thread ends the process. It is needed
    also where torchrun ends the others with SIGTERM, which the training loop takes as a request to stop after its step.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, master: str):
        """Collective. master: the name or address at which all ranks find the store's machine."""
        self.store, self.rank = dist.PrefixStore("failure", store), rank
        self._ours: str | None = None
        self._printed = threading.Lock()
        self._ended = threading.Event()
        self._contact = Contact(dist.PrefixStore("contact", store), rank, world_size, master)
        self._thread = threading.Thread(target=self._watch, name="alarm", daemon=True)
        self._thread.start()

    def explain(self, error: BaseException) -> str:
        """What ended the run, in a sentence: `error`, or what another rank had reported before."""
        if self._ours is None:
            _ignore_termination()
            lost = isinstance(error, RuntimeError) and any(word in str(error) for word in LOST)
            failed = f"rank {self.rank} failed: {type(error).__name__}: {error}"
            text = self._loss_of("another rank") if lost else failed
            self._ours = self._first(text, wait=3.0 if lost else 0.0)  # who was lost, the alarm of rank 0 says
        return self._ours

    def report(self, error: BaseException) -> None:
        """Print the reason, on the rank that knows it; a traceback where the error is not the user's to mend."""
        text = self.explain(error)
        if not text.startswith(f"rank {self.rank} "):
            return
        if "failed:" in text and not isinstance(error, (ValueError, OSError)):
            text = f"{''.join(traceback.format_exception(error))}{text}"
        self._print(text)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self._contact.close()

    def _loss_of(self, whom: str) -> str:
        return f"rank {self.rank} lost contact with {whom}, which was killed or whose machine is gone"

    def _print(self, text: str) -> None:
        """Once: this rank's main thread and its alarm may find the same out."""
        if self._printed.acquire(blocking=False):
            print(f"error: {text}", file=sys.stderr, flush=True)

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
            if self._failed():
                if not self._ended.wait(GRACE_SECONDS):
                    os._exit(1)
                return

    def _failed(self) -> bool:
        lost = self._contact.lost()
        if lost is not None:
            text = self._loss_of(f"rank {lost}")
            if self._first(text, wait=0.0) == text:  # else it has said why, and then left
                self._print(text)
            return True
        try:
            return self.store.check([FIRST])
        except RuntimeError:
            return True


def _ignore_termination() -> None:
    """torchrun sends SIGTERM a tenth of a second after it misses a rank; this one is ending, and has to say why."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

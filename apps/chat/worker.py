"""A thread that runs one replica of the model: requests go in, pieces of answers come out."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from answer import AnswerText, Piece
from loading import Loaded
from speaker import Speaker

from gpt_core.generate import ContinuousBatch, Event, Request

Listener = Callable[[list[Piece]], None]
"""Called in the worker's thread with what an answer grew by in one step; an empty list: the worker failed."""

_log = logging.getLogger(__name__)


@dataclass
class Job:
    """A request on its way, and who listens to its answer."""

    request: Request
    stop: Sequence[str]
    listener: Listener
    texts: list[AnswerText] = field(default_factory=list)
    ticket: int | None = None
    cancelled: bool = False

    @property
    def going(self) -> bool:
        return not all(text.done for text in self.texts)


class Worker:
    """One model replica on one device, and the batch that its requests share.

    Args:
        rows: answers that it gives at a time.
        prefix_bytes: keys and values kept for the next turns of conversations.
    """

    def __init__(self, number: int, loaded: Loaded, speaker: Speaker, rows: int, prefix_bytes: int):
        self.number, self.loaded, self.speaker, self.rows = number, loaded, speaker, rows
        self.busy = 0
        """Rows promised to requests; kept by whoever hands out places."""
        vocabulary = loaded.tokenizer.vocab_size
        self._batch = ContinuousBatch(loaded.model, rows, vocab_size=vocabulary, prefix_bytes=prefix_bytes)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: dict[int, Job] = {}
        self.abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
        self._thread.start()

    @property
    def counts(self):
        """What the batch has done, in all; see gpt_core.generate.continuous.Counts."""
        return self._batch.counts

    def submit(self, request: Request, stop: Sequence[str], listener: Listener) -> Job:
        """Start an answer. `listener` is told of it from the worker's thread until the last piece of every sample."""
        job = Job(request, stop, listener)
        decode, tool = self.speaker.decode, request.tool
        job.texts = [AnswerText(decode, request.prompt, stop, tool) for _ in range(request.num_samples)]
        self._inbox.put(job)
        return job

    def cancel(self, job: Job) -> None:
        """Stop working on it before the next token; nothing more is said of it."""
        job.cancelled = True
        self._inbox.put(job)

    def close(self) -> None:
        """End the thread once no request is left; returns at once."""
        self._inbox.put(None)

    def abandon(self) -> None:
        """End the thread after the step that it is in, and wait for that; what is left to do fails."""
        self.abandoned = True
        self._inbox.put(None)
        self._thread.join()
        with suppress(queue.Empty):
            while True:
                job = self._inbox.get_nowait()
                if job is not None and job.ticket is None:
                    job.listener([])
        self._fail()

    def _run(self) -> None:
        if self.loaded.device.type == "cuda":
            torch.cuda.set_device(self.loaded.device)
        closing = False
        while not self.abandoned and (not closing or self._batch.busy):
            try:
                closing |= self._read_inbox()
                if self._batch.busy:
                    self._tell(self._batch.step())
            except Exception:  # a thread's last chance to say so: the answers under way are lost, the server is not
                _log.exception("worker %d failed; its %d answers are lost", self.number, len(self._jobs))
                self._fail()
                time.sleep(0.1)  # where every step fails there is no hurry

    def _read_inbox(self) -> bool:
        """Take what has come, waiting for it where there is nothing else to do; True: time to end."""
        while True:
            try:
                job = self._inbox.get(block=not self._batch.busy)
            except queue.Empty:
                return False
            if job is None:
                return True
            if job.ticket is None and not job.cancelled:
                try:
                    job.ticket = self._batch.add(job.request)
                except ValueError:  # whoever submits has checked it: a bug, and one request's only
                    _log.exception("worker %d refused a request", self.number)
                    job.listener([])
                    continue
                self._jobs[job.ticket] = job
            elif job.cancelled and job.ticket in self._jobs:
                self._batch.cancel(job.ticket)
                del self._jobs[job.ticket]

    def _tell(self, events: list[Event]) -> None:
        """Tell every listener what its answer grew by."""
        pieces: dict[int, list[Piece]] = {}
        failed: list[Job] = []
        for event in events:
            job = self._jobs[event.ticket]
            text = job.texts[event.sample]
            if text.done:  # a stop text ended it, and its row goes on until all samples have
                continue
            if event.reason == "not_finite":
                failed.append(job)
                continue
            pieces.setdefault(event.ticket, []).append(text.push(event))
        for ticket, made in pieces.items():
            job = self._jobs[ticket]
            for text in job.texts:
                if text.done and text.detail != "stop_text":  # whose tokens go on after the text
                    self.speaker.remember(job.request.prompt, text.text, text.ids)
            if not job.going:
                self._batch.cancel(ticket)
                del self._jobs[ticket]
            job.listener(made)
        for job in failed:
            if job.ticket in self._jobs:
                _log.error("worker %d: logits that are NaN or infinite ended an answer", self.number)
                self._batch.cancel(job.ticket)
                del self._jobs[job.ticket]
                job.listener([])

    def _fail(self) -> None:
        jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.listener([])
        self._batch.clear()

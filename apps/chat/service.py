"""Answers to requests: from a checked `Ask` through the queue and a worker to a stream of pieces."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from answer import Piece, merged
from hall import Busy, Hall
from metrics import Metrics
from speaker import Prompt
from validation import MOST_CHARACTERS_IN_ALL, Ask, Refused
from worker import Job, Worker

from gpt_core.generate import Request


class WorkerFailed(RuntimeError):
    """The model failed in the middle of an answer."""


class Answering:
    """One request under way. Iterate over it for its pieces; `close` it in every case.

    Attributes:
        prompt: the conversation in tokens; notice in it says what was left out.
        new_tokens: tokens made so far, over all samples.
        first_token_seconds: from the request's arrival to its first token; None before.
    """

    def __init__(self, ask: Ask, worker: Worker, prompt: Prompt, hall: Hall, metrics: Metrics, arrived: float):
        self.ask, self.worker, self.prompt, self.arrived = ask, worker, prompt, arrived
        self.new_tokens, self.first_token_seconds = 0, None
        self._hall, self._metrics, self._loop = hall, metrics, asyncio.get_running_loop()
        self._pieces: list[Piece] = []
        self._event, self._failed = asyncio.Event(), False
        self._going = set(range(ask.samples))
        """Samples that the worker has not ended; `_unread`: whose ends nobody has read."""
        self._unread = set(self._going)
        self._placed = True
        self._job: Job = worker.submit(self._request(), ask.stop, self._listen)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Pieces as they come; what came meanwhile is one piece per sample."""
        while self._unread:
            await self._event.wait()
            self._event.clear()
            if self._failed:
                raise WorkerFailed(
                    "the server is ending"
                    if self.worker.abandoned
                    else "the model failed while it answered; the server's log says why"
                )
            came, self._pieces = self._pieces, []
            by_sample: dict[int, list[Piece]] = {}
            for piece in came:
                by_sample.setdefault(piece.sample, []).append(piece)
            for sample, pieces in sorted(by_sample.items()):
                piece = merged(pieces)
                if piece.finish is not None:
                    self._unread.discard(sample)
                yield piece

    def close(self) -> None:
        """End an answer under way before its next token. May be called twice."""
        if self._placed and not self._failed:
            self.worker.cancel(self._job)
        self._give_back()

    def _give_back(self) -> None:
        """The place is free as soon as nothing grows there, however slowly the answer is read."""
        if self._placed:
            self._placed = False
            self._hall.leave(self.worker, self.ask.samples)
            self._metrics.answered(self, "failed" if self._failed else "cancelled" if self._going else "finished")

    def _request(self) -> Request:
        speaker, ask = self.worker.speaker, self.ask
        return Request(
            self.prompt.ids,
            ask.max_tokens,
            ask.sampling,
            seed=random.SystemRandom().getrandbits(48) if ask.seed is None else ask.seed,
            num_samples=ask.samples,
            stop_ids=speaker.stop_ids,
            banned_ids=speaker.banned_ids,
            tool=speaker.tool,
        )

    def _listen(self, pieces: list[Piece]) -> None:
        """In the worker's thread."""
        if self._loop.is_closed():  # the server has ended
            return
        self._loop.call_soon_threadsafe(self._arrive, pieces)

    def _arrive(self, pieces: list[Piece]) -> None:
        if not self._placed:  # closed meanwhile
            return
        if not pieces:
            self._failed = True
        elif self.first_token_seconds is None:
            self.first_token_seconds = time.monotonic() - self.arrived
            self._metrics.first_token(self.first_token_seconds)
        self.new_tokens += sum(piece.tokens for piece in pieces)
        self._pieces += pieces
        self._going -= {piece.sample for piece in pieces if piece.finish is not None}
        if self._failed or not self._going:
            self._give_back()
        self._event.set()


async def answer(
    ask: Ask, hall: Hall, metrics: Metrics, told: Callable[[int], None] = lambda position: None
) -> Answering:
    """Wait for a place and begin. Refused where the model cannot take the request, Busy where no place comes free.

    told: called with the position in the queue, 1 is next.
    """
    arrived = time.monotonic()
    first = hall.workers[0]
    prompt = _prompt(ask, first)  # what can never be served should not wait first
    try:
        worker = await hall.enter(ask.samples, told)
    except Busy:
        metrics.answers["turned_away"] += 1
        raise
    except asyncio.CancelledError:
        metrics.answers["cancelled"] += 1
        raise
    try:
        if worker.speaker is not first.speaker:  # another model came while we waited
            prompt = _prompt(ask, worker)
        return Answering(ask, worker, prompt, hall, metrics, arrived)
    except BaseException:
        hall.leave(worker, ask.samples)
        raise


def _prompt(ask: Ask, worker: Worker) -> Prompt:
    if ask.model not in (None, worker.loaded.name):
        raise Refused(f"the model {ask.model!r} is not loaded; {worker.loaded.name!r} is", "model", 404)
    if ask.samples > worker.rows:
        raise Refused(f"n is {ask.samples}, this server gives {worker.rows} answers at a time", "n")
    try:
        prompt = worker.speaker.prompt(ask.messages, ask.max_tokens, ask.evict)
    except ValueError as error:
        raise Refused(str(error), "messages") from error
    if not ask.left_out:
        return prompt
    before = f"{ask.left_out} older messages are left out: {MOST_CHARACTERS_IN_ALL:,} characters are read at most."
    return replace(prompt, notice=f"{before} {prompt.notice}".strip())

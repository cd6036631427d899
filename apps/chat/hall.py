"""Who is answered now and who waits: places at the workers, handed out in the order of arrival.

Everything here runs in the event loop's thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker import Worker


class Busy(Exception):
    """No place came free in time, or too many wait already."""


@dataclass(eq=False)
class _Waiting:
    rows: int
    place: asyncio.Future[Worker]
    told: Callable[[int], None]
    position: int = 0


class Hall:
    """Places at the workers of the model that is served.

    Args:
        timeout: seconds that a request waits for a place at most.
        most_waiting: requests that may wait; one more is turned away at once.
    """

    def __init__(self, workers: Sequence[Worker], timeout: float, most_waiting: int):
        self.workers, self.timeout, self.most_waiting = list(workers), timeout, most_waiting
        self._queue: deque[_Waiting] = deque()
        self._retired: list[Worker] = []
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests without a place."""
        return len(self._queue)

    async def enter(self, rows: int, told: Callable[[int], None] = lambda position: None) -> Worker:
        """A worker with that many rows for us, until `leave`. Raises Busy.

        told: called with our position in the queue, 1 is next, whenever it changes.
        """
        if self._closed:
            raise Busy("the server is ending")
        if not self._queue and (worker := self._free(rows)):
            worker.busy += rows
            return worker
        if len(self._queue) >= self.most_waiting:
            raise Busy(f"the server is busy: {len(self._queue)} requests wait already; try again later")
        waiting = _Waiting(rows, asyncio.get_running_loop().create_future(), told)
        self._queue.append(waiting)
        self._tell()
        try:
            await asyncio.wait([waiting.place], timeout=self.timeout)
        except asyncio.CancelledError:
            self._withdraw(waiting)
            raise
        if not waiting.place.done():
            self._withdraw(waiting)
            raise Busy(f"the server is busy: no place came free within {self.timeout:g} s; try again later")
        return waiting.place.result()

    def leave(self, worker: Worker, rows: int) -> None:
        """Give rows back; those who wait get them."""
        worker.busy -= rows
        if worker in self.workers:
            self._hand_out()
        elif worker.busy == 0:
            worker.close()

    def swap(self, workers: Sequence[Worker]) -> None:
        """Serve with other workers from now on; the old ones finish what they have, and what they have promised."""
        old, self.workers = self.workers, list(workers)
        for worker in old:
            if worker.busy == 0:
                worker.close()
        self._retired = [worker for worker in (*self._retired, *old) if worker.busy]
        self._hand_out()

    def close(self) -> None:
        """End all workers, whatever they have to do, and turn away who waits."""
        self._closed = True
        for waiting in self._queue:
            waiting.place.set_exception(Busy("the server is ending"))
        self._queue.clear()
        for worker in (*self.workers, *self._retired):
            worker.abandon()

    def _free(self, rows: int) -> Worker | None:
        """The least busy worker with so many rows left."""
        able = [worker for worker in self.workers if worker.rows - worker.busy >= rows]
        return min(able, key=lambda worker: worker.busy, default=None)

    def _hand_out(self) -> None:
        before = len(self._queue)
        while self._queue and (worker := self._free(self._queue[0].rows)):
            waiting = self._queue.popleft()
            worker.busy += waiting.rows
            waiting.place.set_result(worker)
        if len(self._queue) != before:
            self._tell()

    def _withdraw(self, waiting: _Waiting) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)
            self._hand_out()  # a large one no longer holds up the small ones behind it
            self._tell()
        elif waiting.place.done() and not self._closed:  # it was given to us as we went
            self.leave(waiting.place.result(), waiting.rows)

    def _tell(self) -> None:
        for position, waiting in enumerate(self._queue, 1):
            if waiting.position != position:
                waiting.position = position
                waiting.told(position)

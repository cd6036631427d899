"""Answers over HTTP: server-sent events, and what happens when the client goes away."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send
from validation import MOST_BYTES, Refused

BODY_SECONDS = 30
SEND_SECONDS = 60
"""A client that takes nothing for so long is given up."""
T = TypeVar("T")


class Gone(Exception):
    """The client has closed the connection."""


class AsciiResponse(JSONResponse):
    """JSON that can always be sent: the name of a file need not be Unicode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


class EventStream(Response):
    """Sends the bytes of a generator as they come, and closes it in every case: at once if the client goes.

    close: called then, too. A generator that was never started has no `finally` that would run.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], close: Callable[[], None] = lambda: None):
        self.status_code, self.background, self._events, self._close = 200, None, events, close
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump, gone = asyncio.create_task(self._pump(send)), asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait([pump, gone], return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                with suppress(TimeoutError):  # the server closes the connection then
                    pump.result()
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            await self._events.aclose()
            self._close()

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            async with asyncio.timeout(SEND_SECONDS):
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if the client goes away meanwhile: then Gone."""
    task, gone = asyncio.create_task(work), asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(task, gone, return_exceptions=True)


async def read_body(request: Request) -> bytes:
    """The body, of at most a mebibyte and within half a minute. Refused otherwise."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise Refused(f"the body is longer than {MOST_BYTES} bytes", status=413)
    except TimeoutError:
        raise Refused(f"the body did not arrive within {BODY_SECONDS} seconds", status=408) from None
    return bytes(body)


def event(data: Any) -> bytes:
    """One server-sent event with JSON in it."""
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients skip, and that a page may read."""
    return f": {text}\n\n".encode()

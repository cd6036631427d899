"""What every request passes: whose it is, what it may do to a browser, and that it is counted.

A server on 127.0.0.1 can be reached by every page that its user's browser has open. Two checks keep strangers' pages
out: the Host must be a name of this server (a page cannot point a name of its own at us), and an Origin, which browsers
send with every request of another site that may change something, must be the same as the Host.
"""

import asyncio
import json
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from metrics import Metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """Wraps the application.

    Args:
        hosts: names by which clients may call this server; None: any, for one that is open to the network.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Collection[str] | None):
        self._app, self._metrics, self._hosts = app, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the HTTP server, which keeps its own, leaves the body out
        body = _Body(receive)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.drain()
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests[route, message["status"]] += 1
            await send(message)

        if refusal := self._refusal(scope):
            await _refuse(send_guarded, refusal)
        else:
            await self._app(scope, body.receive, send_guarded)

    def _refusal(self, scope: Scope) -> str | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            return f"this server does not go by the name {host[:100]!r}; start it with --allow_host"
        if origin is not None and scope["method"] not in ("GET", "HEAD") and _netloc(origin) != host:
            return f"requests from pages of {origin[:100]!r} are not served"
        return None


class _Body:
    """A request's body on its way. What nobody read is read before the answer goes out, up to a limit.

    A connection that is closed on unread bytes is reset, and the client may never see why it was refused.
    """

    MOST_BYTES, SECONDS = 8 << 20, 5.0

    def __init__(self, receive: Receive):
        self._receive, self._more = receive, True

    async def receive(self) -> Message:
        message = await self._receive()
        self._more = self._more and bool(message.get("more_body", False))  # none of a disconnect
        return message

    async def drain(self) -> None:
        left = self.MOST_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(self.SECONDS):
                while self._more and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _refuse(send: Send, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": 403}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})

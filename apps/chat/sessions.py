"""Conversations that the server keeps: the interface of the older page (`/api/chat`, `/api/session`, `/api/clear`)."""

import asyncio
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from service import answer
from site_state import Site
from streams import read_body, unless_gone
from validation import Ask, Refused, check_fields, check_text, number, parse_json, parse_messages, text, whole

from gpt_core.generate import Sampling

IDLE_SECONDS = 60 * 60
MOST_SESSIONS = 1000


@dataclass
class Session:
    """One conversation, as far as it is read: its oldest turns are forgotten. `lock` keeps two questions apart."""

    messages: list[dict[str, str]] = field(default_factory=list)
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """Conversations by id; one that nobody used for an hour is forgotten, and the oldest where there are too many."""

    def __init__(self, idle_seconds: float = IDLE_SECONDS, most: int = MOST_SESSIONS):
        self._idle, self._most = idle_seconds, most
        self._kept: dict[str, Session] = {}

    def new(self) -> tuple[str, Session]:
        self._forget(room=1)
        name, session = str(uuid.uuid4()), Session()
        self._kept[name] = session
        return name, session

    def get(self, name: str) -> Session:
        """Refused with 404 for one that is not, or no longer, there."""
        self._forget(room=0)
        session = self._kept.get(name)
        if session is None:
            raise Refused("there is no such session (they end after an hour without use)", "session_id", 404)
        session.used = time.monotonic()
        return session

    def _forget(self, room: int) -> None:
        now = time.monotonic()
        by_use = sorted(self._kept.items(), key=lambda item: item[1].used)
        idle = [name for name, session in by_use if now - session.used > self._idle]
        surplus = [name for name, _ in by_use[: max(0, len(by_use) + room - self._most)]]
        for name in {*idle, *surplus}:
            if not self._kept[name].lock.locked():
                del self._kept[name]


def router(site: Site) -> APIRouter:
    routes, sessions = APIRouter(prefix="/api"), Sessions()

    @routes.post("/chat")
    async def chat(request: Request) -> dict[str, Any]:
        body = parse_json(await read_body(request))
        check_fields(body, {"message", "session_id", "max_tokens", "temperature", "top_k"})
        message = check_text(text(body, "message"), "message", 8000, "message")
        temperature = number(body, "temperature", 0, 2, 0.2)
        if temperature == 0:
            raise Refused("temperature must be over 0 here, got 0", "temperature")
        sampling = Sampling(temperature=temperature, top_k=whole(body, "top_k", 1, 1000, 50))
        limit = whole(body, "max_tokens", 1, 1024, 256)
        known = body.get("session_id") is not None
        name, session = (text(body, "session_id"), None) if known else sessions.new()
        session = session or sessions.get(name)
        return await unless_gone(request, _turn(site, name, session, message, sampling, limit))

    @routes.post("/session/new")
    async def new() -> dict[str, str]:
        return {"session_id": sessions.new()[0]}

    @routes.get("/session/{name}")
    async def show(name: str) -> dict[str, Any]:
        return {"session_id": name, "conversation": sessions.get(name).messages}

    @routes.post("/clear")
    async def clear(session_id: str) -> dict[str, Any]:
        sessions.get(session_id).messages = []
        return {"session_id": session_id, "conversation": []}

    return routes


async def _turn(
    site: Site, name: str, session: Session, message: str, sampling: Sampling, limit: int
) -> dict[str, Any]:
    """Ask and answer; the session learns of both only when the answer is complete."""
    async with session.lock:
        before = session.messages
        asked = [*before, {"role": "user", "content": message}]
        read = parse_messages(asked, evict=True)
        ask = Ask(read, sampling, limit, evict=True, left_out=len(asked) - len(read))
        answering = await answer(ask, site.hall, site.metrics)
        try:
            said = "".join([piece.text async for piece in answering])
        finally:
            answering.close()
        conversation = [*read, {"role": "assistant", "content": said}]
        if session.messages is before:  # not cleared meanwhile
            session.messages = conversation
    notice = {"notice": answering.prompt.notice} if answering.prompt.notice else {}
    return {"response": said, "conversation": conversation, "session_id": name, **notice}

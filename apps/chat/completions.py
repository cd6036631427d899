"""Answers in OpenAI's form, and in the form of the older page: requests to JSON, or to a stream of events."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from answer import Piece
from fastapi import APIRouter, Request, Response
from hall import Busy
from service import Answering, WorkerFailed, answer
from site_state import Site
from streams import AsciiResponse, EventStream, comment, event, read_body, unless_gone
from validation import Ask, Refused, parse_ask, parse_json

DONE = b"[DONE]"


def router(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        ask = parse_ask(parse_json(await read_body(request)), site.defaults)
        if ask.stream and ask.positions:
            return EventStream(_with_positions(site, ask))
        if ask.stream:
            answering = await unless_gone(request, answer(ask, site.hall, site.metrics))
            return EventStream(_chunks(answering), answering.close)
        return AsciiResponse(await unless_gone(request, _whole(site, ask)))

    @routes.post("/chat/completions")
    async def older(request: Request) -> Response:
        body = parse_json(await read_body(request))
        ask = parse_ask({"stream": True, "evict": True, **body}, site.defaults)
        if not ask.stream:
            return AsciiResponse(await unless_gone(request, _whole(site, ask)))
        answering = await unless_gone(request, answer(replace(ask, samples=1), site.hall, site.metrics))
        return EventStream(_tokens(answering), answering.close)

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        loaded = site.loaded.name
        names = [loaded, *(name for name in await asyncio.to_thread(site.checkpoints) if name != loaded)]
        return {"object": "list", "data": [_model(site, name) for name in names]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != site.loaded.name and name not in await asyncio.to_thread(site.checkpoints):
            raise Refused(f"there is no model {name[:200]!r}; GET /v1/models lists them", "model", 404)
        return _model(site, name)

    return routes


def _model(site: Site, name: str) -> dict[str, Any]:
    created = int(site.metrics.started)
    return {"id": name, "object": "model", "created": created, "owned_by": "local", "loaded": name == site.loaded.name}


async def _whole(site: Site, ask: Ask) -> dict[str, Any]:
    """The answer in one object."""
    answering = await answer(ask, site.hall, site.metrics)
    try:
        pieces: list[list[Piece]] = [[] for _ in range(ask.samples)]
        async for piece in answering:
            pieces[piece.sample].append(piece)
        choices = []
        for sample, came in enumerate(pieces):
            message: dict[str, Any] = {"role": "assistant", "content": "".join(piece.text for piece in came)}
            if made := [_calculation(each) for piece in came for each in piece.calculations]:
                message["calculations"] = made
            end = came[-1]
            choices.append({"index": sample, "message": message, "finish_reason": end.finish, "detail": end.detail})
        head = _head(answering, "chat.completion")
        return {**head, **_notice(answering), "choices": choices, "usage": _usage(answering)}
    finally:
        answering.close()


async def _with_positions(site: Site, ask: Ask) -> AsyncGenerator[bytes]:
    """The place in the queue as comments, then the answer; errors are events, as the status has gone out already."""
    told: asyncio.Queue[int | None] = asyncio.Queue()  # None: no more
    entering = asyncio.create_task(answer(ask, site.hall, site.metrics, told.put_nowait))
    entering.add_done_callback(lambda task: told.put_nowait(None))
    try:
        while (position := await told.get()) is not None:
            yield comment(f"position {position}")
        async for chunk in _chunks(await entering):
            yield chunk
    except Busy as error:
        yield event(problem(str(error), 503))
    except Refused as error:
        yield event(problem(str(error), error.status, error.param))
    finally:
        entering.cancel()
        await asyncio.wait([entering])
        if not entering.cancelled() and entering.exception() is None:
            entering.result().close()


async def _chunks(answering: Answering) -> AsyncGenerator[bytes]:
    """The answer in OpenAI's chunks. Ours besides: `tokens` of a chunk, `calculations`, `notice`, `detail`."""
    head, samples = _head(answering, "chat.completion.chunk"), range(answering.ask.samples)
    try:
        opening = {"role": "assistant", "content": ""}
        choices = [{"index": i, "delta": opening, "finish_reason": None} for i in samples]
        yield event({**head, **_notice(answering), "choices": choices})
        async for piece in answering:
            delta: dict[str, Any] = {"content": piece.text} if piece.text else {}
            if piece.calculations:
                delta["calculations"] = [_calculation(made) for made in piece.calculations]
            choice = {"index": piece.sample, "delta": delta, "finish_reason": piece.finish, "tokens": piece.tokens}
            yield event({**head, "choices": [choice | ({"detail": piece.detail} if piece.finish else {})]})
        if answering.ask.include_usage:
            yield event({**head, "choices": [], "usage": _usage(answering)})
        yield event(DONE)
    except WorkerFailed as error:
        yield event(problem(str(error), 500))
    finally:
        answering.close()


async def _tokens(answering: Answering) -> AsyncGenerator[bytes]:
    """The answer as the older page reads it."""
    try:
        async for piece in answering:
            if piece.text:
                yield event({"token": piece.text, "gpu": answering.worker.number})
        yield event({"done": True})
    except WorkerFailed as error:
        yield event(problem(str(error), 500))
    finally:
        answering.close()


def problem(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _head(answering: Answering, kind: str) -> dict[str, Any]:
    name = answering.worker.loaded.name
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}


def _notice(answering: Answering) -> dict[str, str]:
    return {"notice": answering.prompt.notice} if answering.prompt.notice else {}


def _usage(answering: Answering) -> dict[str, int]:
    prompt, new = len(answering.prompt.ids), answering.new_tokens
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def _calculation(made: Any) -> dict[str, str | None]:
    return {"expression": made.expression, "result": made.result}

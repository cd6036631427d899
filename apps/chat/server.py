"""The web application: the page, its status and models, and the interfaces for programs."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import completions
import sessions
from completions import problem
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse
from guard import Guard
from hall import Busy
from service import WorkerFailed
from site_state import Site
from starlette.exceptions import HTTPException
from streams import AsciiResponse, Gone, read_body
from validation import Refused, check_fields, parse_json, text

WEB = Path(__file__).parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CLIENT_CLOSED = 499

_log = logging.getLogger(__name__)


def build(site: Site, hosts: Collection[str] | None) -> Guard:
    """The application. hosts: see `Guard`."""
    app = FastAPI(default_response_class=AsciiResponse, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(completions.router(site))
    app.include_router(sessions.router(site))
    _add_status(app, site)
    _add_models(app, site)
    _add_page(app)
    _add_errors(app)
    return Guard(app, site.metrics, hosts)


def _add_status(app: FastAPI, site: Site) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        free = sum(worker.busy < worker.rows for worker in site.hall.workers)
        return {"status": "ok", "ready": True, "num_gpus": len(site.hall.workers), "available_workers": free}

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        workers = site.hall.workers
        rows, busy = sum(worker.rows for worker in workers), sum(worker.busy for worker in workers)
        each = [
            {"worker": worker.number, "device": str(worker.loaded.device), "rows": worker.rows, "busy": worker.busy}
            for worker in workers
        ]
        return {"total": rows, "available": rows - busy, "busy": busy, "waiting": site.hall.waiting, "workers": each}

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(site.metrics.text(site.hall), media_type="text/plain; version=0.0.4")


def _add_models(app: FastAPI, site: Site) -> None:
    @app.get("/api/status")
    async def status() -> dict[str, Any]:
        loaded = site.loaded
        defaults = {
            "temperature": site.defaults.temperature,
            "top_k": site.defaults.top_k,
            "max_tokens": site.defaults.max_tokens,
        }
        return {
            "model": loaded.name,
            "kind": "base" if loaded.template is None else "chat",
            "template": None if loaded.template is None else loaded.template.name,
            "device": str(loaded.device),
            "context": loaded.context,
            "parameters": loaded.parameters,
            "may_load": site.may_load,
            "defaults": defaults,
        }

    @app.get("/api/checkpoints")
    def checkpoints() -> dict[str, Any]:  # looks at the disk: in a thread
        return {"checkpoints": site.checkpoints(), "loaded": site.loaded.name}

    @app.post("/api/load_checkpoint")
    async def load_checkpoint(request: Request) -> dict[str, Any]:
        body = parse_json(await read_body(request))
        check_fields(body, {"checkpoint"})
        loaded = await site.change_model(text(body, "checkpoint", 4096))
        return {"status": "ok", "model": loaded.name}


def _add_page(app: FastAPI) -> None:
    files = {path.name: path for path in sorted(WEB.iterdir()) if path.suffix in TYPES}

    @app.get("/")
    async def page() -> Response:
        return _file(files["index.html"])

    @app.get("/web/{name}")
    async def part(name: str) -> Response:
        if name not in files:  # a listing made at the start: no name leads anywhere else
            raise HTTPException(404, f"there is no file {name[:200]!r}")
        return _file(files[name])


def _file(path: Path) -> Response:
    return FileResponse(path, media_type=TYPES[path.suffix], headers={"cache-control": "no-cache"})


def _add_errors(app: FastAPI) -> None:
    def said(status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> Response:
        return AsciiResponse(problem(message, status, param), status, headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return said(error.status, str(error), error.param)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return said(503, str(error), headers={"retry-after": "5"})

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=CLIENT_CLOSED)

    @app.exception_handler(WorkerFailed)
    async def failed(request: Request, error: WorkerFailed) -> Response:
        return said(500, str(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return said(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def unprocessable(request: Request, error: RequestValidationError) -> Response:
        return said(400, "a parameter of the address is missing or of the wrong type")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return said(500, "the server failed; its log says why")

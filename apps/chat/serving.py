"""Starts the server: a model on every device, then uvicorn until Ctrl-C."""

import argparse
import ipaddress
import socket
import sys
from contextlib import suppress
from pathlib import Path

import torch
import uvicorn
from hall import Hall
from loading import How
from server import build
from site_state import Site, start_workers
from validation import Defaults

from gpt_core.generate import locate

LOCAL = ("localhost", "127.0.0.1", "::1")


def serve(options: argparse.Namespace) -> None:
    """Blocks until the server ends. ValueError for options or a model that cannot be."""
    if options.threads:
        torch.set_num_threads(options.threads)
    with listen(options.host, options.port) as listening:  # first: a large model takes long to load
        site = open_site(options)
        loaded, port = site.loaded, listening.getsockname()[1]
        kind = (
            "base model, continues text" if loaded.template is None else f"chat model, template {loaded.template.name}"
        )
        shown = f"[{options.host}]" if ":" in options.host else options.host
        print(f"{loaded.name}: {loaded.parameters:,} parameters, {kind}, on {', '.join(site.devices)}", file=sys.stderr)
        print(f"http://{shown}:{port}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises it again
            http_server(site, options).run(sockets=[listening])


def open_site(options: argparse.Namespace) -> Site:
    """The model that the options name on every device, and what it may be changed for."""
    how = How(dtype=options.dtype, tokenizer=options.tokenizer, template=options.template, trusted=tuple(options.trust))
    devices, prefix_bytes = choose_devices(options.devices), options.prefix_mb * 2**20
    workers = start_workers(options.model, options.checkpoint, how, devices, options.rows, prefix_bytes)
    return Site(
        Hall(workers, options.busy_timeout, options.queue),
        Path(options.root) if options.root else folder_of_runs(options.model, options.checkpoint),
        devices,
        how,
        options.rows,
        prefix_bytes,
        may_load=not options.fixed,
        defaults=Defaults(options.temperature, options.top_k, options.max_new_tokens),
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections. ValueError where the address is taken, or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ValueError(f"cannot listen: {error.strerror}; choose another --host or --port") from error


class Server(uvicorn.Server):
    """Ends what is under way when it ends, and says so to those who wait."""

    def __init__(self, config: uvicorn.Config, site: Site):
        super().__init__(config)
        self._site = site

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._site.hall.close()
        await super().shutdown(sockets)


def http_server(site: Site, options: argparse.Namespace) -> Server:
    app = build(site, allowed_hosts(options.host, options.allow_host))
    return Server(
        uvicorn.Config(
            app,
            http="h11",  # which bounds what it reads of a request's head
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=30,  # longer than clients keep connections, or both might close one at the same time
        ),
        site,
    )


def choose_devices(names: str) -> list[str]:
    """auto: every GPU, or the CPU. ValueError for one that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if names == "auto":
        return [f"cuda:{i}" for i in range(count)] or ["cpu"]
    chosen = [name.strip() for name in names.split(",")]
    there = ["cpu", *(f"cuda:{i}" for i in range(count))]
    for name in chosen:
        if name not in there:
            raise ValueError(f"there is no device {name!r}; there are {', '.join(there)}")
    return chosen


def folder_of_runs(model: str, checkpoint: str) -> Path:
    """The folder whose runs the page offers: the one that the served run lies in."""
    if model.endswith(".pt"):
        return Path(model).parent
    run, _ = locate(model, checkpoint)
    return run.resolve().parent


def allowed_hosts(host: str, more: list[str]) -> set[str] | None:
    """Names that clients may call the server by; None, any, where it listens on every address and none was named."""
    if ipaddress.ip_address(socket.gethostbyname(host) if ":" not in host else host).is_unspecified and not more:
        return None
    return {*LOCAL, host.lower(), *(name.lower() for name in more)}

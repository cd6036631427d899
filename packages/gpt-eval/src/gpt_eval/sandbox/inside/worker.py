"""Runs a generated program and answers calls to what it defined. Untrusted from its first line on: see `checker`.

Run in a bare interpreter inside the jail with the arguments READ_FD, WRITE_FD and JAILED (0 or 1). It never sees a
test, an expected value or the word that tells success.
"""

from __future__ import annotations

import os
import sys

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO


def main() -> None:
    requests = os.fdopen(int(sys.argv[1]), "rb")
    replies = os.fdopen(int(sys.argv[2]), "wb")
    if sys.argv[3] == "0":
        disarm()
    sys.argv = ["program.py"]
    source = wire.receive(requests)
    names: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    objects: list[Any] = []

    def handle(value: Any) -> int:
        objects.append(value)
        return len(objects) - 1

    wire.send(replies, attempt(lambda: exec(compile(source, "program.py", "exec"), names), handle))
    serve(requests, replies, names, objects, handle)


def disarm() -> None:
    """Takes away what does harm by accident, where no namespace holds it back. No boundary: it can be undone."""
    import shutil
    import subprocess

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError("not available here: the program runs with resource limits only")

    for name in ("kill", "killpg", "remove", "unlink", "removedirs", "rmdir", "rename", "replace", "truncate"):
        setattr(os, name, refused)
    for name in ("chmod", "chown", "link", "symlink", "system", "popen", "fork", "forkpty", "putenv"):
        setattr(os, name, refused)
    for module, name in ((shutil, "rmtree"), (shutil, "move"), (subprocess, "Popen")):
        setattr(module, name, refused)


def serve(requests: BinaryIO, replies: BinaryIO, names: dict[str, Any], objects: list[Any], handle: Any) -> None:
    """Answers ["name", NAME], ["get", HANDLE, ATTRIBUTE] and ["call", HANDLE, ARGS, KEYWORDS] to the end."""

    def perform(verb: str, target: Any, *rest: Any) -> Any:
        if verb == "name":
            return names[target]
        if verb == "get":
            return getattr(objects[target], rest[0])
        args = [wire.decode(arg, objects.__getitem__) for arg in rest[0]]
        keywords = {key: wire.decode(arg, objects.__getitem__) for key, arg in rest[1].items()}
        value = objects[target](*args, **keywords)
        return (value, args)  # the arguments as the call left them: a test may look at a list sorted in place

    while True:
        try:
            request = wire.receive(requests)
        except wire.WireError:
            return
        wire.send(replies, attempt(lambda request=request: perform(*request), handle))


def attempt(action: Any, handle: Any) -> dict[str, Any]:
    """{"value": encoded} or {"raised": [type, message]}; leaving the program is a failure like any other."""
    try:
        return {"value": wire.encode(action(), handle)}
    except BaseException as error:
        try:
            message = str(error)
        except Exception:
            message = "(its text cannot be had)"
        return {"raised": [type(error).__name__, message[:1000]]}

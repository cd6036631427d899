"""Runs a benchmark's test against a program that lives in another process, and says the word if nothing failed.

A program in the interpreter that tests it can make anything pass: an object equal to everything, `sys.exit(0)`, a
patched `print`, a look at the test in the caller's frame. So the two are apart: this process has the test, the expected
values and the word; `worker` has the program, answers calls with plain data (`wire`), and knows none of them.

Run in a bare interpreter inside the jail with three arguments, READ_FD, WRITE_FD and RESULT_FD, its order on stdin as
JSON: source, prelude (the benchmark's own code before the test: helpers of the prompt), test, entry_point, call, word.
"""

from __future__ import annotations

import builtins
import json
import os
import sys

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_DUMPABLE = 4


class RaisedByProgram(Exception):
    """An exception of a type that is not built in."""


class Program:
    """The other process."""

    def __init__(self, read_fd: int, write_fd: int):
        self.replies = os.fdopen(read_fd, "rb")
        self.requests = os.fdopen(write_fd, "wb")

    def load(self, source: str) -> None:
        """Raises what the program raises on its way to its last line, leaving early included."""
        wire.send(self.requests, source)
        self._value(wire.receive(self.replies))

    def ask(self, *request: Any) -> Any:
        try:
            wire.send(self.requests, request)
        except BrokenPipeError:
            raise wire.WireError("the program ended") from None
        return self._value(wire.receive(self.replies))

    def _value(self, reply: Any) -> Any:
        if not isinstance(reply, dict) or not reply.keys() <= {"value", "raised"} or len(reply) != 1:
            raise wire.WireError("a reply that is none")
        if "value" in reply:
            return wire.decode(reply["value"], lambda number: Remote(self, number))
        name, message = map(str, reply["raised"])
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError):
            raise kind(message)
        raise RaisedByProgram(f"{name}: {message}")


class Remote:
    """A function or object of the program: can be called and asked for attributes; equal to itself only."""

    def __init__(self, program: Program, number: int):
        self._program, self._number = program, number

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        sent = [wire.encode(arg, handle_of) for arg in args]
        named = {key: wire.encode(arg, handle_of) for key, arg in keywords.items()}
        value, after = self._program.ask("call", self._number, sent, named)
        for mine, theirs in zip(args, after, strict=True):
            take_over(mine, theirs)
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._program.ask("get", self._number, name)


def handle_of(value: Any) -> int:
    if isinstance(value, Remote):
        return value._number
    raise TypeError(f"a test cannot hand a {type(value).__name__} to the program: only plain data crosses")


def take_over(mine: Any, theirs: Any) -> None:
    """An argument that the program changed in place changes here too."""
    if type(mine) is not type(theirs) or not isinstance(mine, (list, dict, set)) or mine == theirs:
        return
    if isinstance(mine, list):
        mine[:] = theirs
        return
    mine.clear()
    mine.update(theirs)


class Names(dict):
    """Globals of the test: what it does not define itself is the program's."""

    def __init__(self, program: Program):
        super().__init__(__name__="__check__", __builtins__=builtins)
        self.program = program

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) or name.startswith("__"):
            raise KeyError(name)
        return self.program.ask("name", name)


def helpers(prelude: str, names: dict[str, Any]) -> None:
    """Executes the longest beginning of whole lines that is a program: a prompt may end in the middle of one."""
    lines = prelude.splitlines()
    for end in range(len(lines), 0, -1):
        try:
            code = compile("\n".join(lines[:end]) + "\n", "prompt.py", "exec")
        except (SyntaxError, ValueError):
            continue
        exec(code, names)
        return


def main() -> None:
    hide_from_others()
    order = json.load(sys.stdin)
    program = Program(int(sys.argv[1]), int(sys.argv[2]))
    try:
        program.load(order["source"])
        names = Names(program)
        helpers(order["prelude"], names)
        if order["entry_point"]:
            names[order["entry_point"]] = program.ask("name", order["entry_point"])
        exec(compile(order["test"], "test.py", "exec"), names)
        exec(compile(order["call"], "call.py", "exec"), names)
        said = {"word": order["word"]}
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}".strip(": ")[:500]}
    with os.fdopen(int(sys.argv[3]), "w") as result:
        json.dump(said, result)


def hide_from_others() -> None:
    """No process of the same user may read or trace this one (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

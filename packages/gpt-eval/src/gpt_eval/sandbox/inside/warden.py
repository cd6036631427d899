"""Starts the processes of one execution inside the jail, watches them, ends them, and reports.

Run in a bare interpreter, its order on stdin as JSON, its report on stdout as JSON: what came of the program, or
`failed` (nothing was started; `unisolated` where this kernel refused the isolation) or `lost` (what went wrong after
the jail was ready, which the program may have caused). The order holds `bounds` (numbers
of `Limits`), `show` (paths to reveal), `base` (an empty folder), `bare` (the start of a command that runs a module of
this folder) and either `check` (an order for `checker` and `worker`) or `steps` (commands, each to end with 0 before
the next) with `files` to write first.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time

from . import jail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POLL_SECONDS = 0.02
REPORT_BYTES = 1 << 20


class NotIsolated(Exception):
    """The kernel refused the isolation; no program has been started."""


class Watch:
    """Waits for one process while reading what the program prints, counting its memory and minding the time."""

    def __init__(self, bounds: dict[str, Any], alone: bool):
        self.bounds, self.alone = bounds, alone
        self.output, self.result = bytearray(), bytearray()
        self.timeout = self.memory = False

    def until_exit(self, pid: int, streams: dict[int, bytearray], seconds: float) -> int | None:
        """The exit status of `pid` (negative: a signal), None if it was killed for a bound.

        streams: descriptor -> where to put what it says; what exceeds a bound of the output is dropped.
        """
        deadline, next_look = time.monotonic() + seconds, 0.0
        while True:
            ready, _, _ = select.select(list(streams), [], [], POLL_SECONDS)
            for fd in ready:
                self._read(fd, streams)
            status = self._reap(pid)
            if status is not None:
                self._drain(streams)
                return status
            now = time.monotonic()
            if now > deadline:
                self.timeout = True
                return None
            if now > next_look:
                next_look = now + POLL_SECONDS
                if self._resident() > self.bounds["memory"]:
                    self.memory = True
                    return None

    def _read(self, fd: int, streams: dict[int, bytearray]) -> bool:
        data = os.read(fd, 65536)
        if not data:
            del streams[fd]
            return False
        kept = streams[fd]
        room = (REPORT_BYTES if kept is self.result else self.bounds["output"]) - len(kept)
        kept += data[: max(room, 0)]
        return True

    def _drain(self, streams: dict[int, bytearray]) -> None:
        for _ in range(64):  # at most 4 MiB more: a process left behind may go on printing
            ready, _, _ = select.select(list(streams), [], [], 0)
            if not ready:
                return
            for fd in ready:
                self._read(fd, streams)

    def _reap(self, pid: int) -> int | None:
        """Collects everything that has ended; the status of `pid` if it is among them."""
        found = None
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found if found is not None else -1
            if not ended:
                return found
            if ended == pid:
                found = os.waitstatus_to_exitcode(status)

    def _resident(self) -> int:
        """Bytes of memory of the program's processes together, libraries that they share left out (Linux)."""
        total = 0
        for pid in family(self.alone):
            try:
                with open(f"/proc/{pid}/status") as file:
                    fields = [line.split() for line in file if line.startswith(("RssAnon", "RssShmem"))]
            except OSError:
                continue
            total += sum(1024 * int(field[1]) for field in fields)
        return total


def family(alone: bool) -> list[int]:
    """The process ids of the program: all others of the process namespace, else all descendants (Linux)."""
    if not os.path.isdir("/proc/self"):
        return []
    everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if alone:
        return [pid for pid in everyone if pid != 1]
    parents = {}
    for pid in everyone:
        try:
            with open(f"/proc/{pid}/stat") as file:
                parents[pid] = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, edge = [], {os.getpid()}
    while edge:
        edge = {pid for pid, parent in parents.items() if parent in edge}
        found += edge
    return found


def end_all(alone: bool) -> None:
    """Kills what is left of the program. In a process namespace the end of its first process does that by itself."""
    if alone:
        return
    for _ in range(100):
        left = family(alone)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def start(argv: list[str], bounds: dict[str, Any], uid: int | None, fds: dict[int, int], keep: list[int]) -> int:
    """Forks a process without rights that runs `argv`. fds: number in the new process -> descriptor here."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        jail.die_with_parent()
        for target, source in fds.items():
            os.dup2(source, target)
        for fd in keep:
            os.set_inheritable(fd, True)
        spare = os.sysconf("SC_OPEN_MAX")
        edges = [2, *sorted(keep), spare if 0 < spare < 65536 else 65536]
        for low, high in zip(edges, edges[1:], strict=False):  # noqa: RUF007 one import less
            os.closerange(low + 1, high)
        jail.limit(bounds)
        jail.become(uid)
        environment = {"PATH": "/usr/bin:/bin", "HOME": os.getcwd(), "TMPDIR": os.getcwd(), "OMP_NUM_THREADS": "1"}
        os.execve(argv[0], argv, environment)
    except BaseException as error:
        os.write(2, f"the sandbox could not start {argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def check(order: dict[str, Any], uid: int | None, watch: Watch) -> dict[str, Any]:
    """Runs `worker` with the program and `checker` with the test, joined by two pipes."""
    nothing = os.open(os.devnull, os.O_RDWR)
    to_worker, from_checker = os.pipe()
    to_checker, from_worker = os.pipe()
    stdin, order_out = os.pipe()
    printed, out = os.pipe()
    result, result_in = os.pipe()
    bounds = order["bounds"]
    worker = [*order["bare"], "inside.worker", str(to_worker), str(from_worker), str(int(watch.alone))]
    checker = [*order["bare"], "inside.checker", str(to_checker), str(from_checker), str(result_in)]
    start(worker, bounds, uid, {0: nothing, 1: out, 2: out}, [to_worker, from_worker])
    other = None if uid is None else uid + 1
    fds = {0: stdin, 1: nothing, 2: nothing}
    pid = start(checker, bounds, other, fds, [to_checker, from_checker, result_in])
    for fd in (to_worker, from_worker, to_checker, from_checker, stdin, out, result_in):
        os.close(fd)
    try:
        with os.fdopen(order_out, "wb") as stream:
            stream.write(json.dumps(order["check"]).encode())
    except BrokenPipeError:  # it has ended already, which `watch` will see
        pass
    status = watch.until_exit(pid, {printed: watch.output, result: watch.result}, bounds["seconds"])
    return {"status": status, "said": watch.result.decode(errors="replace")}


def run_steps(order: dict[str, Any], uid: int | None, watch: Watch) -> dict[str, Any]:
    """Runs commands one after the other; the last one may say the word on descriptor 3."""
    for name, text in order["files"].items():
        with open(name, "w") as file:
            file.write(text)
    if uid is not None:
        for path in order["files"]:
            os.chown(path, uid, uid)
    status: int | None = None
    for step in order["steps"]:
        nothing = os.open(os.devnull, os.O_RDWR)
        printed, out = os.pipe()
        result, result_in = os.pipe()
        watch.output, watch.result = bytearray(), bytearray()
        watch.bounds = order["bounds"] | step["bounds"]
        os.dup2(result_in, 3)
        pid = start(step["argv"], watch.bounds, uid, {0: nothing, 1: out, 2: out}, [3])
        for fd in {nothing, out, result_in, 3} - {0, 1, 2}:
            os.close(fd)
        streams = {printed: watch.output, result: watch.result}
        status = watch.until_exit(pid, streams, watch.bounds["seconds"])
        if status != 0:
            return {"status": status, "said": "", "step": step["name"]}
    return {"status": status, "said": watch.result.decode(errors="replace")}


def inside(order: dict[str, Any], spaces: list[str]) -> dict[str, Any]:
    """The first process of the jail: builds the root, runs the program, reports."""
    jail.die_with_parent()
    in_force = [*spaces, "resource limits"]
    alone = "process namespace" in spaces
    uid = None
    if alone:
        try:
            listed = jail.enter_root(order["base"], order["show"], 4 * order["bounds"]["file"])
        except OSError as error:  # a kernel that makes namespaces and refuses mounts
            raise NotIsolated(error) from error
        in_force += ["own root", *(["memory of all processes"] if listed else [])]
    else:
        in_force += ["memory of all processes"] if os.path.isdir("/proc/self") else []
        jail.adopt_orphans()
        os.chdir(order["base"])
    if jail.refuse_calls():
        in_force.append("system call filter")
    if os.getuid() == 0:
        if sys.platform != "linux" or not (alone or jail.reachable(order["bare"][0])):
            raise PermissionError(
                "refused: root may run generated programs only where they can become another user; "
                "here there are no namespaces, and other users cannot reach the interpreter"
            )
        uid = jail.FIRST_UID + 2 * (int.from_bytes(os.urandom(8)) % (jail.UIDS // 2))
        os.chown(".", uid, uid)
        in_force.append("another user")
    watch = Watch(order["bounds"], alone)
    try:
        report = check(order, uid, watch) if "check" in order else run_steps(order, uid, watch)
    except Exception as error:
        return {"lost": f"{type(error).__name__}: {error}"}
    finally:
        end_all(alone)
    output = watch.output.decode(errors="replace")
    return report | {"timeout": watch.timeout, "memory": watch.memory, "output": output, "in_force": in_force}


def main() -> None:
    order = json.load(sys.stdin)
    try:
        spaces = jail.separate() if order["isolate"] else []  # before this process hides its maps of users from itself
    except OSError as error:
        print(json.dumps({"failed": str(error), "unisolated": True}), flush=True)
        return
    jail.die_with_parent()
    if "process namespace" in spaces:
        first = os.fork()
        if first:
            os.waitpid(first, 0)
            return
    try:
        report = inside(order, spaces)
    except Exception as error:
        report = {"failed": f"{type(error).__name__}: {error}", "unisolated": isinstance(error, NotIsolated)}
    print(json.dumps(report), flush=True)

"""Ranks of a gloo group as children of one process: it has imported everything already, which costs most of a start."""

import os
import socket
import sys
import traceback
from collections.abc import Callable

import conftest


def warm_up() -> None:
    """torch's first optimizer imports the compiler, for seconds: once, before the forks."""
    conftest.adamw(conftest.tiny_gpt())


def fork_ranks(world_size: int, main: Callable[[int], None]) -> list[int]:
    """Run `main(rank)` in `world_size` processes with torchrun's variables set; returns their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
        code = 77
        try:
            main(rank)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

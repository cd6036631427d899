"""Processes of tests, forked from a server that has imported torch already: that costs most of a process's start.

What such a process runs is found by import, as pickle does: a function of a module in this folder, or `exec` of a text.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

# torch's first optimizer imports the compiler. Only what is installed can stand here: Python before 3.11.10 gives the
# server no sys.path.
IMPORTED = [
    "torch._dynamo",
    "torch.distributed.checkpoint.hf_storage",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "gpt_core.training.run",
    "pytest",  # every process looks into the script that started this one
]


@dataclass(frozen=True)
class Ended:
    """How a process ended (-N: by signal N), and what it printed."""

    code: int
    stdout: str
    stderr: str


def start_server() -> None:
    """Returns at once; the imports go on. The first call of a session decides what is imported."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()


def wait_for_server() -> None:
    """So that no test measures what it takes to start."""
    start_server()
    process = multiprocessing.get_context("forkserver").Process(target=int)
    process.start()
    process.join()


def fork(
    folder: Path, main: Callable[..., Any], *arguments: Any, timeout: float = 120, environment: Mapping[str, str] = {}
) -> Ended:
    """Run `main(*arguments)` in a process; `folder` gets what it prints."""
    return _run(folder, main, arguments, [environment], timeout)[0]


def fork_ranks(folder: Path, size: int, main: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Ended]:
    """Run `main(*arguments)` in `size` processes at once, with torchrun's variables and, like it, a store that outlives
    them all."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    group["TORCHELASTIC_USE_AGENT_STORE"] = True
    places = [group | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(size)]
    places = [{name: str(value) for name, value in place.items()} for place in places]
    return _run(folder, main, arguments, places, timeout)


def _run(
    folder: Path, main: Callable, arguments: tuple, environments: Sequence[Mapping], timeout: float
) -> list[Ended]:
    context = multiprocessing.get_context("forkserver")
    now = time.monotonic_ns()
    printed = [[folder / f"{now}_{rank}.{name}" for name in ("stdout", "stderr")] for rank in range(len(environments))]
    for path in chain(*printed):
        path.touch()
    processes = [
        context.Process(target=_main, args=(paths, environment, main, arguments))
        for paths, environment in zip(printed, environments, strict=True)
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    hung = [rank for rank, process in enumerate(processes) if process.exitcode is None]
    for process in processes:
        process.kill()
        process.join()
    texts = [[path.read_text(encoding="utf-8") for path in paths] for paths in printed]
    assert not hung, f"processes {hung} did not end in {timeout} s; they printed: {texts}"
    return [Ended(process.exitcode, *text) for process, text in zip(processes, texts, strict=True)]


def _main(printed: Sequence[Path], environment: Mapping[str, str], main: Callable, arguments: tuple) -> None:
    for descriptor, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    os.environ.update(environment)
    torch.set_num_threads(1)
    main(*arguments)

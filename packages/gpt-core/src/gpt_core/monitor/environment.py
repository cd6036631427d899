"""What a run was made of: revision, versions, hardware, data. Written into the run folder, without secrets.

The process environment is never written.
"""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .memory import GB, total_memory_gb
from .redact import redact, redact_argv, redact_yaml
from .strict_json import dumps, loads, write_atomic

_PACKAGES = (
    *("gpt-core", "gpt-data", "gpt-dag", "gpt-eval", "gpt-kernels", "gpt-optim"),
    *("torch", "numpy", "triton", "safetensors", "omegaconf", "transformers", "tiktoken", "flash-attn"),
)


def write_run_records(
    run_dir: str | Path,
    *,
    config_yaml: str,
    argv: Sequence[str],
    data: Any = None,
    source_dir: str | Path | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write `config.yaml`, `command.sh` and `manifest.json` into the run folder.

    `data`: digests of the datasets (anything JSON-able). `source_dir`: where to look for the git revision (default:
    this package, then the working directory). On a resume, `config.yaml` becomes the current one, `command.sh` keeps
    the first command and lists the others as comments, and the manifest keeps earlier ones under `earlier`.
    """
    run_dir = Path(run_dir)
    write_atomic(run_dir / "config.yaml", redact_yaml(config_yaml.rstrip("\n")) + "\n")
    _write_command(run_dir / "command.sh", argv)
    manifest = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": redact_argv(argv),
        "git": git_state(source_dir),
        "versions": versions(),
        "hardware": hardware_record(),
        "data": redact(data),
        **redact(dict(extra or {})),
    }
    path = run_dir / "manifest.json"
    if path.exists():
        previous = loads(path.read_text(encoding="utf-8"))
        manifest["earlier"] = [*previous.pop("earlier", []), previous]
    write_atomic(path, dumps(manifest, indent=2) + "\n")


def _write_command(path: Path, argv: Sequence[str]) -> None:
    command = shlex.join(redact_argv(argv))
    if path.exists():
        first = path.read_text(encoding="utf-8").rstrip("\n")
        # A newline in an argument would end the comment and run the rest.
        comment = command.replace("\n", " ")
        write_atomic(path, f"{first}\n# resumed {time.strftime('%Y-%m-%d %H:%M:%S')}: {comment}\n")
        return
    write_atomic(path, f"#!/bin/sh\n# {time.strftime('%Y-%m-%d %H:%M:%S')}, from the repository root\n{command}\n")
    path.chmod(0o755)


def git_state(source_dir: str | Path | None = None) -> dict[str, Any]:
    """`{"revision": sha or None, "dirty": bool or None}` of the first git checkout found."""
    places = [Path(source_dir)] if source_dir is not None else [Path(__file__).parent, Path.cwd()]
    for place in places:
        revision = _git(place, "rev-parse", "HEAD")
        if revision is not None:
            changes = _git(place, "status", "--porcelain", "--untracked-files=no")
            return {"revision": revision, "dirty": None if changes is None else bool(changes)}
    return {"revision": None, "dirty": None}


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, or a hanging file system: not known
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Python's version and those of the installed packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware_record(device: Any = None) -> dict[str, Any]:
    """Processor, memory and GPUs. `gpu_name` is None without CUDA or when `device` is the CPU."""
    import torch

    record: dict[str, Any] = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_name": cpu_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": total_memory_gb(),
        "gpu_name": None,
        "num_gpus": 0,
        "gpu_memory_gb": None,
    }
    device_type = "cuda" if device is None else str(device).partition(":")[0]
    if device_type == "cuda" and torch.cuda.is_available():
        index = torch.device(device).index if device is not None else None
        record["gpu_name"] = torch.cuda.get_device_name(index)
        record["num_gpus"] = torch.cuda.device_count()
        record["gpu_memory_gb"] = torch.cuda.get_device_properties(index).total_memory / GB
    return record


def cpu_name() -> str:
    """The processor's marketing name where the system tells, else its architecture."""
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""Memory in use, in GB = 10⁹ bytes: the allocator's view on CUDA, the process's resident set on the CPU."""

import sys
from typing import Any

GB = 1e9


def memory_stats(device: Any = "cpu", *, reset_peak: bool = False) -> dict[str, float | None]:
    """On CUDA: allocated_gb, max_allocated_gb, reserved_gb, max_reserved_gb. On the CPU: rss_gb, peak_rss_gb.

    `reset_peak` starts a new CUDA peak after reading, so that each call reports the peak since the last. `rss_gb` is
    None where the system does not tell the current value (macOS).
    """
    device_type = getattr(device, "type", None) or str(device).partition(":")[0]
    if device_type != "cuda":
        return {"rss_gb": _resident_gb(), "peak_rss_gb": _peak_resident_gb()}
    import torch

    stats = {
        "allocated_gb": torch.cuda.memory_allocated(device) / GB,
        "max_allocated_gb": torch.cuda.max_memory_allocated(device) / GB,
        "reserved_gb": torch.cuda.memory_reserved(device) / GB,
        "max_reserved_gb": torch.cuda.max_memory_reserved(device) / GB,
    }
    if reset_peak:
        torch.cuda.reset_peak_memory_stats(device)
    return stats


def total_memory_gb() -> float | None:
    """Main memory of the machine, None where the system does not tell."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    except (AttributeError, ValueError, OSError):
        return None


def _resident_gb() -> float | None:
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
    except FileNotFoundError:
        return None
    import resource

    return pages * resource.getpagesize() / GB


def _peak_resident_gb() -> float | None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / GB

"""How busy and how full a GPU is."""

from __future__ import annotations

import torch

MB = 1e6


def gpu_statistics(device: torch.device | str | None = None) -> dict[str, float]:
    """gpu/available; on a CUDA device also mem_used_mb (by everyone), mem_total_mb, mem_frac, mem_peak_mb (of this
    process's tensors) in MB = 10⁶ bytes, and util_pct where nvidia-ml-py is installed.

    Never raises: a figure that cannot be had is left out.
    """
    where = torch.device("cuda" if device is None else device)
    if where.type != "cuda" or not torch.cuda.is_available():
        return {"gpu/available": 0.0}
    figures = {"gpu/available": 1.0}
    try:
        free, total = torch.cuda.mem_get_info(where)
        figures |= {"gpu/mem_used_mb": (total - free) / MB, "gpu/mem_total_mb": total / MB}
        figures |= {"gpu/mem_frac": 1 - free / total, "gpu/mem_peak_mb": torch.cuda.max_memory_allocated(where) / MB}
        figures["gpu/util_pct"] = float(torch.cuda.utilization(where))
    except (RuntimeError, ImportError, AssertionError):  # no nvidia-ml-py, or a driver that does not tell
        pass
    return figures

"""The random state of this process, as JSON."""

from __future__ import annotations

import base64
import random
from typing import Any

import numpy as np
import torch


def _pack(tensor: torch.Tensor) -> str:
    return base64.b64encode(tensor.numpy().tobytes()).decode("ascii")


def _unpack(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)


def rng_state(device: torch.device) -> dict[str, Any]:
    """State of the generators of torch (CPU and this rank's GPU), NumPy and Python."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": _pack(torch.get_rng_state()),
        "numpy": [np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "python": [version, list(words), gauss],
    }
    if device.type == "cuda":
        state["cuda"] = _pack(torch.cuda.get_rng_state(device))
    return state


def restore_rng_state(state: dict[str, Any], device: torch.device) -> None:
    """Inverse of `rng_state`. A state saved without a GPU leaves the GPU's generator as it is."""
    torch.set_rng_state(_unpack(state["torch"]))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_unpack(state["cuda"]), device)

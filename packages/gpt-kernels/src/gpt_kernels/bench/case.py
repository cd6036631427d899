"""What a benchmark measures."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

FORWARD, BOTH = "forward", "forward + backward"


@dataclass(frozen=True)
class Goal:
    """What `gpt_kernels` is to reach on a GPU, at full size."""

    figure: Literal["speed", "bandwidth", "memory"]
    """speed: time of `than` over ours, at least `bound`. bandwidth: share of the device's copies, at least. memory: our
    peak, inputs left out, over that of `than`, at most."""

    bound: float
    than: str = ""
    direction: str = ""
    """FORWARD or BOTH; empty for either."""


@dataclass(frozen=True)
class Case:
    """An operation on given arguments, and those who compute it."""

    op: str
    shape: str
    tensors: tuple[Tensor, ...]
    """The arguments: gradients of all that are floats and require them are part of "forward + backward"."""

    reference: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    backend: str
    """The path that `ours` takes."""

    peers: dict[str, Callable[..., Tensor] | str] = field(default_factory=dict)
    """Other implementations of the same, or why there is none."""

    bytes: int = 0
    """Read and written by a forward that touches everything once."""

    flops: int = 0
    """Multiplications and additions of a forward that computes everything (symmetric halves too)."""

    bytes_both: int = 0
    flops_both: int = 0
    """The same for forward + backward; 0 where it is not measured."""

    goals: tuple[Goal, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Where and on what the cases run."""

    device: torch.device
    dtype: torch.dtype
    full: bool
    """Sizes of a training run on a large GPU; else those that a CPU does in milliseconds."""

    @property
    def takes_peers(self) -> bool:
        """Peers are made for GPUs."""
        return self.device.type == "cuda"

    def pick(self, full: tuple[int, ...], small: tuple[int, ...]) -> tuple[int, ...]:
        return full if self.full else small

    def random(self, *shape: int, scale: float = 1.0, grad: bool = True) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(0)
        values = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32) * scale
        return values.to(self.dtype).requires_grad_(grad)


Cases = Callable[[Setting], Iterator[Case]]


def peer(
    package: str, path: str, setting: Setting, call: Callable[[Any], Callable[..., Tensor]]
) -> Callable[..., Tensor] | str:
    """`call(what the path "module:name" names)`, or the reason why this peer cannot be measured."""
    module, name = path.split(":")
    if importlib.util.find_spec(module.split(".")[0]) is None:
        return f"{package} is not installed"
    if not setting.takes_peers:
        return f"{package} needs CUDA"
    return call(getattr(importlib.import_module(module), name))

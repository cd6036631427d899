"""Bytes of weights, gradients and optimizer state that a rank holds.

With P parameters in float32, Adam and W ranks: ddp 4P + 4P + 8P, zero1 and zero2 4P + 4P + 8P/W, fsdp 16P/W
(Rajbhandari et al. 2020, arXiv:1910.02054). Activations and buffers of the communication are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gpt_core.training.sharded_optimizer import CountsState

STEP_BYTES = 4  # Adam counts the steps of each tensor in a float32


@dataclass(frozen=True)
class StateBytes:
    """Of rank 0, which holds most: rows are shared out in equal parts, rounded up."""

    weights: int
    gradients: int
    """At their most: whole under zero1 and zero2, and under fsdp while several micro-steps add up."""
    optimizer: int | None
    """None where there is no formula for the optimizer."""
    ddp: int | None
    """All three of them without sharding."""

    @property
    def total(self) -> int | None:
        return None if self.optimizer is None else self.weights + self.gradients + self.optimizer

    @property
    def saving(self) -> float | None:
        """The share of `ddp` that is not needed: 0.375 for zero1 and 0.75 for fsdp with Adam on 4 ranks."""
        return None if self.total is None or not self.ddp else 1 - self.total / self.ddp

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"total": self.total, "saving": self.saving}

    def sentence(self, strategy: str) -> str:
        parts = f"weights {_gb(self.weights)} + gradients {_gb(self.gradients)} + optimizer {_gb(self.optimizer)}"
        if self.total is None:
            return f"{parts} (no formula for this optimizer)"
        if self.saving is None or strategy in ("single", "ddp"):
            return f"{parts} = {_gb(self.total)}"
        return f"{parts} = {_gb(self.total)}, {self.saving:.1%} less than ddp's {_gb(self.ddp)}"


def state_bytes(model: nn.Module, optimizer: Optimizer, strategy: str, world_size: int, micro_steps: int) -> StateBytes:
    """By formula, from shapes alone, before the first step."""
    ranks = world_size if strategy == "fsdp" else 1
    weights = list(model.parameters())
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    held = _adam_bytes(optimizer, trained, ranks)
    whole = _adam_bytes(optimizer, trained, 1)
    if isinstance(optimizer, CountsState):
        held, whole = optimizer.expected_state_bytes(), _size(_state_tensors(optimizer))
    return StateBytes(
        weights=_size(weights, ranks),
        gradients=_size(trained, 1 if micro_steps > 1 else ranks),
        optimizer=held,
        ddp=None if whole is None else _size(weights) + _size(trained) + whole,
    )


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Bytes of optimizer state that this rank really holds now."""
    return local_bytes(_state_tensors(optimizer))


def local_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of this rank's parts of the tensors."""
    local = [getattr(tensor, "_local_tensor", tensor) for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local)


def _state_tensors(optimizer: Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]


def _size(tensors: Iterable[Tensor], ranks: int = 1) -> int:
    """Bytes of the first of `ranks` equal parts, by rows rounded up, of each tensor."""
    return sum(_part(tensor, ranks) * tensor.element_size() for tensor in tensors)


def _part(tensor: Tensor, ranks: int) -> int:
    if ranks == 1 or not tensor.dim() or not tensor.numel():
        return tensor.numel()
    rows = tensor.shape[0]
    return -(-rows // ranks) * (tensor.numel() // rows)


def _adam_bytes(optimizer: Optimizer, parameters: list[Tensor], ranks: int) -> int | None:
    """Two moments (three with amsgrad) of each parameter and a step counter; None for other optimizers."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.AdamW):
        return None
    moments = 3 if optimizer.defaults["amsgrad"] else 2
    return moments * _size(parameters, ranks) + STEP_BYTES * len(parameters)


def _gb(number: int | None) -> str:
    if number is None:
        return "n/a"
    return f"{number / 1e9:.3f} GB" if number >= 1e7 else f"{number / 1e6:.3f} MB"

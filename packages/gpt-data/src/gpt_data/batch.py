"""One batch of token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Token ids and the ids that follow them.

    B: rows of the batch, T: context length; packed documents are one row of B·T tokens.
    """

    inputs: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64: the id after each input; -1 is ignored by the loss."""
    cu_seqlens: Tensor | None = None
    """Document boundaries of a packed batch (int32, begins with 0), None where rows are plain runs of text."""

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which a CUDA copy can run in the background."""
        packed = None if self.cu_seqlens is None else self.cu_seqlens.pin_memory()
        return Batch(self.inputs.pin_memory(), self.targets.pin_memory(), packed)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on `device`; `non_blocking` lets the copy of a pinned batch overlap with computation."""
        packed = None if self.cu_seqlens is None else self.cu_seqlens.to(device, non_blocking=non_blocking)
        inputs = self.inputs.to(device, non_blocking=non_blocking)
        return Batch(inputs, self.targets.to(device, non_blocking=non_blocking), packed)

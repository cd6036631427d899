"""Rows of different lengths without their padding: most of a mixed batch would be padding.

B rows, T positions, n tokens that are not padding, in reading order, row after row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a batch stand."""

    live: Tensor
    """(B, T) bool: not padding."""

    @cached_property
    def index(self) -> Tensor:
        """(n,) places in the flattened batch. Waits for a GPU: n depends on the data."""
        return self.live.flatten().nonzero()[:, 0]

    @cached_property
    def position(self) -> Tensor:
        """(n,) place of each token within its row, padding not counted."""
        return (self.live.cumsum(1) - 1).flatten()[self.index]

    @cached_property
    def row(self) -> Tensor:
        """(n,)"""
        return self.index // self.live.shape[1]

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, ...) -> (n, ...)"""
        return padded.flatten(0, 1).index_select(0, self.index)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """(n, ...) -> (B, T, ...) with `fill` in the padding."""
        B, T = self.live.shape
        spread = packed.new_full((B * T, *packed.shape[1:]), fill).index_copy(0, self.index, packed)
        return spread.view(B, T, *packed.shape[1:])

    def attention_mask(self, window: int | None) -> Tensor:
        """(B, 1, T, T) bool: who may look at whom; padding looks at everything, so that no softmax is empty."""
        allowed = self.live[:, None, :]
        if window is not None:
            place = self.live.cumsum(1)
            allowed = allowed & ((place[:, :, None] - place[:, None, :]).abs() <= window)
        return (allowed | ~self.live[:, :, None])[:, None]

    def neighbours(self, reach: int, dilation: int = 1) -> Neighbours:
        return Neighbours(reach * dilation, dilation, self.row)


class Neighbours:
    """Tokens on either side of each, every `dilation`-th up to `far`, for a convolution; zeros beyond a row's ends."""

    def __init__(self, far: int, dilation: int, row: Tensor):
        self.far, self.offsets = far, range(0, 2 * far + 1, dilation)
        rows = F.pad(row, (far, far), value=-1)
        inside = torch.stack([rows[offset : offset + len(row)] == row for offset in self.offsets], 1)
        self.inside = inside[:, :, None]  # (n, offsets, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, H) -> (n, offsets · H)"""
        spread = F.pad(x, (0, 0, self.far, self.far))
        window = torch.stack([spread[offset : offset + len(x)] for offset in self.offsets], 1)
        return (window * self.inside).flatten(1)

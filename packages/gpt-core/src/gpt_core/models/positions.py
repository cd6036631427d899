"""Position encodings, by name. Each maps token vectors to (token vectors, rotary table or None).

Dimensions: B batch, T tokens, D model width, K head dimension, S context length.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from gpt_kernels import ROTARY_STYLES, rotary_table

if TYPE_CHECKING:  # config.py imports the registries, not the reverse
    from .config import GPTConfig

ROPE_STYLES = dict.fromkeys(ROTARY_STYLES)
Rotary = tuple[Tensor, Tensor]  # cos and sin, each (T, K/2) or (B, 1, T, K/2)


class LearnedPositions(nn.Module):
    """A trained vector per absolute position, added to the token vector."""

    def __init__(self, config: "GPTConfig"):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.context_length, config.n_embd))

    def forward(self, x_BTD: Tensor, positions: Tensor | None) -> tuple[Tensor, None]:
        table = self.weight[: x_BTD.shape[1]] if positions is None else self.weight[positions]
        return x_BTD + table, None


class RotaryPositions(nn.Module):
    """Nothing is added; attention rotates q and k by a table kept here once for all layers.

    The table is not part of the state dict, never below float32, and rebuilt when the module leaves the meta
    device or changes dtype.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: "GPTConfig"):
        super().__init__()
        self.length, self.head_dim, self.theta = config.context_length, config.head_dim, config.rope_theta
        if torch.empty(0).is_meta:  # `_apply` makes the table; here torch would import its compiler to make nothing
            cos, sin = torch.empty(2, self.length, self.head_dim // 2)
        else:
            cos, sin = rotary_table(self.length, self.head_dim, self.theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x_BTD: Tensor, positions: Tensor | None) -> tuple[Tensor, Rotary]:
        if positions is None:
            T = x_BTD.shape[1]
            return x_BTD, (self.cos[:T], self.sin[:T])
        cos, sin = self.cos[positions], self.sin[positions]
        if positions.ndim == 2:  # one row of positions per sequence, the same for every head
            cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return x_BTD, (cos, sin)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.cos
        super()._apply(fn, recurse)
        after = self.cos
        dtype = torch.float64 if after.dtype == torch.float64 else torch.float32
        if not after.is_meta and (before.is_meta or after.dtype != before.dtype):
            self.cos, self.sin = rotary_table(self.length, self.head_dim, self.theta, dtype=dtype, device=after.device)
        return self


class NoPositions(nn.Module):
    """Order is known only through the causal mask."""

    def __init__(self, config: "GPTConfig"):
        super().__init__()

    def forward(self, x_BTD: Tensor, positions: Tensor | None) -> tuple[Tensor, None]:
        return x_BTD, None


def positions_in_documents(cu_seqlens: Tensor, T: int) -> Tensor:
    """(T,) int64: the place of each token in its document, for a row of packed documents."""
    token_T = torch.arange(T, device=cu_seqlens.device)
    starts = cu_seqlens.to(token_T.dtype)
    return token_T - starts[torch.searchsorted(starts, token_T, right=True) - 1]


POSITIONS: dict[str, type[nn.Module]] = {
    "learned_absolute": LearnedPositions,
    "rope": RotaryPositions,
    "none": NoPositions,
}

"""What changes with the windows while a model is trained: rotary frequencies and the scale of attention's scores.

Dimensions: T tokens, K channels of a head, M frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from gpt_kernels import frequency_table, half_truncated_frequencies, paired_table, yarn_frequencies, yarn_scale

from .config import SpeedrunConfig

FIRST_SCALE = 0.1
"""Of the scores before any window has grown; not 1 / sqrt(K)."""

Table = tuple[Tensor, Tensor]  # cos and sin


class Tables(NamedTuple):
    """Rotary tables of T tokens: (T, M) for one head, (T, K) for two heads seen as one of 2K channels."""

    plain: Table
    paired: Table


class RotaryState(nn.Module):
    """Windows, rotary frequencies and scale, all part of the state dict: a checkpoint restores what YaRN did.

    Frequencies are f_m = 1024^(−m / (M − 1)); M = K/4 turns half the channels of a head, M = K/2 all of them. Angles
    are position · f_m, positions count the tokens of a row from 0 on and are not reset at documents: attention sees
    differences only.

    windows and yarn_window are tokens before itself that a token sees: one less than `gpt_kernels.attention` counts.
    """

    frequencies: Tensor
    numbers: Tensor

    def __init__(self, config: SpeedrunConfig):
        super().__init__()
        self.head_dim, self.yarn = config.head_dim, config.yarn
        self.width = config.head_dim if config.half_rotary else 2 * config.head_dim
        self.short, self.long = config.window_short, config.window_long
        self.yarn_window, self.scale = self.long, FIRST_SCALE
        self.register_buffer("frequencies", half_truncated_frequencies(self.width))
        self.register_buffer("numbers", torch.zeros(4, dtype=torch.float64))
        self._remember()
        self._cached: tuple[tuple[Any, ...], Tables] | None = None
        self.register_load_state_dict_post_hook(_recall)

    def set_windows(self, short: int, long: int, *, yarn: bool = True) -> None:
        """Windows of this many tokens from now on; the same as before is no change.

        With yarn a long window that has grown, since the last time that yarn was asked for, stretches the frequencies
        and sharpens the scores (spec: `gpt_kernels.yarn_frequencies`, `yarn_scale`); without it the mask alone grows.
        """
        if not 1 <= short <= long:
            raise ValueError(f"windows are tokens, 1 <= short <= long, got {short} and {long}")
        if yarn and self.yarn and long != self.yarn_window:
            self.frequencies.copy_(yarn_frequencies(self.frequencies, self.yarn_window, long))
            self.scale = yarn_scale(self.scale, self.yarn_window, long)
            self.yarn_window = long
            self._cached = None
        self.short, self.long = short, long
        self._remember()

    def tables(self, T: int, dtype: torch.dtype) -> Tables:
        """Tables of positions 0 … T − 1 in the dtype of the activations, kept between calls; a compiled model makes its
        own."""
        if torch.compiler.is_compiling():
            return self._make(T, dtype)
        key = (T, dtype, self.frequencies.device, self.frequencies._version)
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._make(T, dtype))
        return self._cached[1]

    def _make(self, T: int, dtype: torch.dtype) -> Tables:
        options: dict[str, Any] = {"clockwise": True, "dtype": dtype, "device": self.frequencies.device}
        plain = frequency_table(T, self.frequencies, **options)
        return Tables(plain, paired_table(T, self.frequencies, self.head_dim, **options))

    def _remember(self) -> None:
        numbers = [self.short, self.long, self.yarn_window, self.scale]
        self.numbers.copy_(torch.tensor(numbers, dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follows to another device, not to another dtype: tables are made from float64 angles.

        Off the meta device it is as new.
        """
        frequencies, numbers = self.frequencies, self.numbers
        super()._apply(fn, recurse)
        device = self.frequencies.device
        if frequencies.is_meta and device.type != "meta":
            self.frequencies = half_truncated_frequencies(self.width).to(device)
            self._remember()
        elif self.frequencies.dtype != torch.float64:
            self.frequencies, self.numbers = frequencies.to(device), numbers.to(device)
        self._cached = None
        return self


def _recall(state: RotaryState, _: Any) -> None:
    """After loading: the numbers that the model uses are Python's, for a compiled graph has them as constants."""
    short, long, yarn_window, scale = state.numbers.tolist()
    state.short, state.long, state.yarn_window, state.scale = int(short), int(long), int(yarn_window), scale
    state._cached = None

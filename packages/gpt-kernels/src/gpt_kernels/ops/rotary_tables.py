"""Rotary tables of the speedrun: half-truncated frequencies, YaRN's stretch when the window grows, pairs of heads.

    frequencies = half_truncated_frequencies(128)                      # 32 of them turn 64 channels of 128
    cos, sin = frequency_table(2048, frequencies, clockwise=True)
    frequencies = yarn_frequencies(frequencies, window, longer)        # whenever the long window grows
    scale = yarn_scale(scale, window, longer)                          # of the attention's scores

After YaRN (Peng et al. 2023, arXiv:2309.00071), as used by modded-nanogpt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def half_truncated_frequencies(head_dim: int, base: float = 1024.0) -> Tensor:
    """(head_dim / 4,) float64: base^(−m / (head_dim / 4 − 1)), from 1 to 1 / base, for the first half of the channels.

    The other half is not turned: `apply_rotary` leaves it alone when the table has fewer columns than the head pairs.
    """
    if head_dim % 4 or head_dim < 8:
        raise ValueError(f"half-truncated frequencies need a head dimension divisible by 4, at least 8, got {head_dim}")
    count = head_dim // 4
    return (1 / base) ** (torch.arange(count, dtype=torch.float64) / (count - 1))


def frequency_table(
    positions: int | Tensor,
    frequencies: Tensor,
    *,
    clockwise: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the angles position · frequency, each (*positions.shape, len(frequencies)), computed in float64.

    positions: a count n (meaning 0 … n−1) or a tensor. clockwise: turn by minus the angle, as the speedrun does; the
    scores of attention are the same for either sense when queries and keys agree.
    """
    if isinstance(positions, int):
        positions = torch.arange(positions, device=device)
    angle = positions.double().unsqueeze(-1) * frequencies.to(positions.device, torch.float64)
    return angle.cos().to(dtype), (-angle.sin() if clockwise else angle.sin()).to(dtype)


def paired_table(
    tokens: int,
    frequencies: Tensor,
    head_dim: int,
    *,
    clockwise: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """(cos, sin), (tokens, head_dim): for two heads seen as one of twice the channels (the speedrun's paired layers).

    The first head of token t stands at position 2t and the second at 2t + 1; pairs of channels beyond the frequencies
    have angle 0. For `apply_rotary` with style "interleaved".
    """
    if 2 * len(frequencies) > head_dim:
        raise ValueError(f"{len(frequencies)} frequencies turn {2 * len(frequencies)} channels, a head has {head_dim}")
    still = frequencies.new_zeros(head_dim // 2 - len(frequencies))
    all_frequencies = torch.cat((frequencies, still))
    options = {"clockwise": clockwise, "dtype": dtype, "device": device}
    cos, sin = frequency_table(2 * tokens, all_frequencies, **options)
    return cos.view(tokens, head_dim), sin.view(tokens, head_dim)


def yarn_frequencies(
    frequencies: Tensor, old_window: int, new_window: int, *, slow: float = 1.0, fast: float = 32.0
) -> Tensor:
    """Frequencies for a window that grew from old to new, in tokens.

    Those that turn at least `fast` times within the old window stay, those that turn at most `slow` times are divided
    by the growth, and those between are blended in proportion.
    """
    _check_windows(old_window, new_window)
    turns = old_window * frequencies / (2 * math.pi)
    kept = ((turns - slow) / (fast - slow)).clamp(0, 1)
    shrink = old_window / new_window
    return frequencies * (shrink + kept * (1 - shrink))


def yarn_scale(scale: float, old_window: int, new_window: int, *, strength: float = 0.2) -> float:
    """The softmax scale after the window grew from old to new: more keys ask for sharper scores."""
    _check_windows(old_window, new_window)
    return scale * (1 + strength * math.log(new_window / old_window))


def _check_windows(old_window: int, new_window: int) -> None:
    if old_window < 1 or new_window < 1:
        raise ValueError(f"windows are counted in tokens, at least 1, got {old_window} and {new_window}")

"""Random plans. B candidates, N = max_ops + 1 numbers, D = max_ops steps; no host synchronisation, no Python loop but
over D."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.reduce import reduce
from gpt_dag.stream.bits import FIELDS, below, field, half, threshold, words
from gpt_dag.stream.law import STYLES, Law

BELOW_ONE = 0.06
WORDS_PER_NUMBER = 3
LEGACY_CLASSES = 5  # the four operators and identity


class Rows(NamedTuple):
    """What stays when an example is drawn anew."""

    count: Tensor
    """(B,) int64 numbers."""
    style: Tensor
    """(B,) int64: place in `STYLES`."""


class Candidates(NamedTuple):
    plans: Plans
    percent: Tensor
    """(B, N) bool: which numbers are percentages, already folded into `plans`."""
    style: Tensor
    """(B,) int64: place in `STYLES`."""


def draw_rows(law: Law, keys: Tensor) -> Rows:
    """keys: (B,) of the examples."""
    first, second = words(keys, 2).unbind(-1)
    if law.shape == "right":
        slots = below(LEGACY_CLASSES, field(words(second, max(law.max_ops, 1)), 0))[..., : law.max_ops]
        count = 1 + (slots < LEGACY_CLASSES - 1).long().cumprod(-1).sum(-1)
    else:
        count = 1 + law.min_ops + below(law.max_ops - law.min_ops + 1, half(first, 0), 32)
    chosen = torch.tensor([list(STYLES).index(style) for style in law.styles], device=keys.device)
    return Rows(count, chosen[below(len(law.styles), half(first, 1), 32)])


def draw_plans(law: Law, rows: Rows, keys: Tensor) -> Candidates:
    """keys: (B,) of the candidates, one for each of `rows`."""
    N, D = law.max_numbers, law.max_ops
    value, shape, rest = words(keys, WORDS_PER_NUMBER, N).unbind(-2)  # (B, N) each
    live = torch.arange(N, device=keys.device) < rows.count[:, None]
    negative = (field(shape, 2) < threshold(law.p_negative)) & live
    scaled, decimals = _magnitudes(law, value, shape, field(rest, 0) < threshold(law.p_zero))
    share = torch.tensor([style.percent for style in STYLES.values()], device=keys.device)
    percent_below = (law.p_percent * share * FIELDS).round().long()
    percent = (field(rest, 1) < percent_below[rows.style][:, None]) & live
    decimals = torch.where(live, decimals + 2 * percent, 0)
    operator = torch.where(live[:, 1:], below(4, field(rest, 2))[:, :D], -1)
    if law.shape == "right":
        priority = torch.arange(D, device=keys.device).expand_as(operator)
    else:
        priority = field(rest, 3)[:, :D]
    steps = reduce(operator, priority, rows.count)
    plans = Plans(negative, torch.where(live, scaled, 0), decimals, rows.count, *steps)
    return Candidates(plans, percent, rows.style)


def _magnitudes(law: Law, value: Tensor, shape: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """scaled and decimals (B, N) of numbers without their signs and percents. value, shape: random words."""
    device = value.device
    tens = torch.tensor([10**e for e in range(13)], device=device)
    decimals = below(law.max_decimals + 1, field(shape, 1))
    if law.shape == "right":
        digits = below(law.max_digits + 1, field(shape, 0))  # 0: the integer part is 0
    else:
        small = (field(shape, 3) < threshold(BELOW_ONE)) & (decimals > 0)
        digits = (1 + below(law.max_digits, field(shape, 0))).masked_fill(small, 0)
    low = tens[digits] // 10  # 0 for no digits
    whole = low + below(tens[digits] - low, half(value, 0), 32)
    whole = whole.masked_fill(digits == 0, 0)
    scale = tens[decimals]
    first = scale // 10 if law.shape == "right" else torch.zeros_like(scale)  # least fraction
    fraction = first + below(scale - first, half(value, 1), 32)
    fraction = fraction.masked_fill(decimals == 0, 0)
    return (whole * scale + fraction).masked_fill(zero, 0), decimals

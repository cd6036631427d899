"""The definition of attention, T × S scores in memory."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dispatch import without_autocast


def manual(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    mask: Tensor | None,
    softcap: float,
    scale: float | None,
    dropout: float,
) -> Tensor:
    """The definition. Scores and softmax in float32 (float64 for float64)."""
    repeat = q_BHTK.shape[1] // k_BGSK.shape[1]
    if repeat > 1:
        k_BGSK = k_BGSK.repeat_interleave(repeat, 1)
        v_BGSK = v_BGSK.repeat_interleave(repeat, 1)
    scale = 1 / math.sqrt(q_BHTK.shape[-1]) if scale is None else scale
    wide = torch.promote_types(q_BHTK.dtype, torch.float32)  # products of 120 and 120 leave float16
    with without_autocast(q_BHTK):
        score_BHTS = (q_BHTK.to(wide) @ k_BGSK.to(wide).transpose(-2, -1)) * scale
    if softcap:
        score_BHTS = softcap * torch.tanh(score_BHTS / softcap)
    if mask is not None:
        # The most negative number, not -inf: a row that sees nothing stays finite, and is zeroed below.
        score_BHTS = score_BHTS.masked_fill(~mask, torch.finfo(score_BHTS.dtype).min)
    weight_BHTS = score_BHTS.softmax(-1)
    if mask is not None:
        weight_BHTS = weight_BHTS.masked_fill(~mask, 0.0)
    if dropout:
        weight_BHTS = F.dropout(weight_BHTS, dropout)
    return weight_BHTS.to(v_BGSK.dtype) @ v_BGSK

"""Where the expressions of a batch stand, and from where on their values are known.

Dimensions: B batch, T tokens, S spans in all rows, L tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Spans:
    """The text before every "=", back to the "=" or the end of an example before it."""

    ids: Tensor
    """(S, L) the tokens of each span, `pad` after its end; L >= 1."""
    length: Tensor
    """(S,) tokens of each, perhaps 0."""
    row: Tensor
    """(S,) the row it stands in; spans are in order."""
    which: Tensor
    """(B, T) the span whose value a position may know: the last "=" at or before it, within its example; -1: none."""
    since: Tensor
    """(B, T) tokens from that "=" on: 0 at the "=" itself."""


def find_spans(ids_BT: Tensor, equals: int, end: int, pad: int) -> Spans:
    """Causal by construction: a span's tokens are all before its "=", and nobody before the "=" knows of it."""
    T = ids_BT.shape[1]
    time_T = torch.arange(T, device=ids_BT.device)
    is_equals, is_border = ids_BT == equals, (ids_BT == equals) | (ids_BT == end)
    last_equals = torch.where(is_equals, time_T, -1).cummax(1).values
    last_end = torch.where(ids_BT == end, time_T, -1).cummax(1).values
    last_border = torch.where(is_border, time_T, -1).cummax(1).values
    before_BT = torch.cat([last_border.new_full((len(ids_BT), 1), -1), last_border[:, :-1]], 1)

    row, place = is_equals.nonzero(as_tuple=True)
    start = before_BT[row, place] + 1
    length = place - start
    longest = max(int(length.max()), 1) if len(row) else 1
    offset_L = torch.arange(longest, device=ids_BT.device)
    source = (start[:, None] + offset_L).clamp(max=T - 1)
    spans = torch.where(offset_L < length[:, None], ids_BT[row[:, None], source], pad)
    number_BT = is_equals.flatten().cumsum(0).view_as(ids_BT) - 1
    known = last_equals > last_end
    return Spans(
        ids=spans,
        length=length,
        row=row,
        which=torch.where(known, number_BT, -1),
        since=torch.where(known, time_T - last_equals, 0),
    )

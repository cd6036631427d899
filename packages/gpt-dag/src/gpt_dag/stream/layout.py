"""Plans with looks to token ids, tags and text, all examples at once.

Each example is a row of segments, N numbers with 9 each: parentheses that open, sign, thousands, rest, two groups of
decimals, percent, parentheses that close, operator. Segments are rows of a `Table`, most of them empty; the running sum
of their lengths says which segment a place of the text belongs to, and one gather copies the tokens.
B examples, S = 9 N segments, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.stream.looks import Looks
from gpt_dag.stream.tables import CARDINAL, SPELLED, Table
from gpt_dag.tags import COLUMNS, IGNORED, NEGATIVE, PERCENT, ROLE, Role

PARTS = 9
PERCENT_PART, OPERATOR_PART = 6, 8
AT_ONCE = 1024
"""Expressions whose tokens are laid out together: few enough for a CPU's caches."""


@dataclass(frozen=True)
class Segments:
    """B expressions as rows of the table."""

    rows: Tensor
    """(B, S)"""
    ends: Tensor
    """(B, S): where each segment ends, in tokens."""

    @property
    def length(self) -> Tensor:
        """(B,) tokens."""
        return self.ends[:, -1]


@dataclass(frozen=True)
class Layout:
    """B expressions as tokens, padded on the right."""

    ids: Tensor
    """(B, T) int64 of `WordTokenizer`, 0 in padding."""
    tags: Tensor
    """(B, T, 6) int64, as `tags` says."""
    length: Tensor
    """(B,) int64 tokens; more than T where the text did not fit."""
    source: Tensor
    """(B, T) int64: which token of the table each is."""


def segments(plans: Plans, percent: Tensor, looks: Looks, table: Table) -> Segments:
    """percent: (B, N) bool. The plans use their numbers once and in order."""
    B, N = plans.scaled.shape
    opens, closes = parentheses(plans, looks)
    live = torch.arange(N, device=plans.device) < plans.count[:, None]
    digits = plans.decimals - 2 * percent.long()  # written after the point
    tens = torch.tensor([10**e for e in range(13)], device=plans.device)
    whole, fraction = plans.scaled // tens[digits], plans.scaled % tens[digits]
    thousands, rest = whole // 1000, whole % 1000
    spoken = ((looks.way == CARDINAL) | (looks.way == SPELLED)).long()
    first, later = digits.clamp(max=3), (digits - 3).clamp(min=0)
    head, tail = fraction // tens[later], fraction % tens[later]
    operator = torch.full_like(whole, -1)
    operator[:, :-1] = plans.reading_order()
    parts = (
        look_up(table.opens, looks.words_open, opens),
        table.signs[looks.sign],
        look_up(table.thousands, looks.way, looks.with_and, thousands),
        look_up(table.rest, looks.way, (thousands > 0).long(), looks.comma, looks.with_and, rest),
        look_up(table.decimals, spoken, torch.zeros_like(first), first, head),
        look_up(table.decimals, spoken, torch.ones_like(later), later, tail),
        table.percents[looks.percent],
        look_up(table.closes, looks.words_close, closes),
        look_up(table.operators, operator.clamp(min=0), looks.operator, looks.variant) * (operator >= 0),
    )
    rows = (torch.stack(parts, -1) * live[..., None]).view(B, N * PARTS)
    return Segments(rows, table.length[rows].cumsum(1))


def look_up(rows: Tensor, *indices: Tensor) -> Tensor:
    """`rows[indices]`; on one flat index, several times as fast on CPUs."""
    flat = indices[0]
    for size, index in zip(rows.shape[1:], indices[1:], strict=True):
        flat = flat * size + index
    return rows.view(-1)[flat]


def parentheses(plans: Plans, looks: Looks) -> tuple[Tensor, Tensor]:
    """(B, N) how many open before and close after every number: the fewest that keep the tree, and redundant ones."""
    B, N = plans.scaled.shape
    live = torch.arange(N, device=plans.device) < plans.count[:, None]
    opens = (looks.redundant & live).long()
    closes = opens.clone()
    first = plans.node_room(torch.arange(N, device=plans.device).expand(B, N))  # number that every node begins with
    last = first.clone()
    binding = torch.full_like(first, 3)  # of every node's text: 3 number, 2 product, 1 sum
    for step in range(plans.operator.shape[1]):
        operator, left, right = (t[:, step : step + 1] for t in (plans.operator, plans.left, plans.right))
        used = operator >= 0
        strength = 1 + (operator >= 2).long()
        low, high = first.gather(1, left), last.gather(1, right)
        around_left = (used & (binding.gather(1, left) < strength)).long()
        around_right = (used & (binding.gather(1, right) <= strength)).long()  # operators group to the left
        again = (used & looks.redundant_step[:, step : step + 1]).long()
        opens.scatter_add_(1, low, around_left + again)
        opens.scatter_add_(1, first.gather(1, right), around_right)
        closes.scatter_add_(1, last.gather(1, left), around_left)
        closes.scatter_add_(1, high, around_right + again)
        first[:, N + step], last[:, N + step], binding[:, N + step] = low[:, 0], high[:, 0], strength[:, 0]
    return opens, closes


def lay_out(plans: Plans, percent: Tensor, parts: Segments, table: Table, width: int) -> Layout:
    """The first `width` tokens of every expression."""
    B = max(len(plans), 1)
    step = AT_ONCE if plans.device.type == "cpu" else B
    ranges = [slice(start, start + step) for start in range(0, B, step)]
    chunks = [_tokens(plans[r], percent[r], Segments(parts.rows[r], parts.ends[r]), table, width) for r in ranges]
    ids, tags, source = (torch.cat(part) if len(part) > 1 else part[0] for part in zip(*chunks, strict=True))
    return Layout(ids, tags, parts.length, source)


def _tokens(plans: Plans, percent: Tensor, parts: Segments, table: Table, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids (B, T), tags (B, T, 6) and source (B, T)."""
    B, S = parts.rows.shape
    device = plans.device
    place = torch.arange(width, device=device)
    # The segment at a place is the number of segments that end at it or before.
    marks = torch.zeros(B, width + 1, dtype=torch.int64, device=device)
    marks.scatter_add_(1, parts.ends.clamp(max=width), torch.ones_like(parts.ends))
    segment = marks[:, :-1].cumsum(1).clamp_(max=S - 1)
    source = table.start[parts.rows] - (parts.ends - table.length[parts.rows])
    source = source.gather(1, segment).add_(place).masked_fill_(place >= parts.length[:, None], 0)
    tags = torch.nn.functional.embedding(source, table.tags)
    # What is known of a number as a whole is said by its last token, which has role NONE and no flags so far.
    end = parts.ends.view(B, -1, PARTS)[..., PERCENT_PART] - 1
    live = torch.arange(end.shape[1], device=device) < plans.count[:, None]
    live = (live & (end < width))[..., None]
    ends = torch.ones_like(end) * int(Role.NUMBER_END)
    said = torch.stack([ends, plans.negative.long() - IGNORED, percent.long() - IGNORED], -1) * live
    columns = torch.tensor([ROLE, NEGATIVE, PERCENT], device=device)
    where = (end.clamp(max=width - 1) * len(COLUMNS))[..., None] + columns
    tags.view(B, -1).scatter_add_(1, where.view(B, -1), said.view(B, -1))
    return table.ids[source], tags, source


def texts(parts: Segments, table: Table) -> list[str]:
    """The text of every expression."""
    rows, newline = parts.rows.cpu(), len(table.texts)
    rows = torch.nn.functional.pad(rows, (0, 1), value=newline)
    pieces = [*table.texts, "\n"]
    joined = "".join(map(pieces.__getitem__, rows[rows > 0].tolist()))
    return joined[1:-1].split("\n ") if len(rows) else []  # every text begins with a space

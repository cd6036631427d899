"""Examples of a split: plans that are drawn until they fit, laid out as ids, tags and text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.stream.bits import key_of, mix, words
from gpt_dag.stream.checks import SPLITS, fingerprint, in_split, presentable
from gpt_dag.stream.draw import Candidates, draw_plans, draw_rows
from gpt_dag.stream.law import Law
from gpt_dag.stream.layout import Layout, Segments, lay_out, segments, texts
from gpt_dag.stream.looks import Looks, draw_looks
from gpt_dag.stream.tables import Table, table

FIRST = {"train": 1, "val": 64, "test": 64}
"""Candidates of every example in the first round; each round has twice as many."""
AT_ONCE = 1 << 15
"""Candidates in memory."""
SAME = {"train": 16, "val": 1024, "test": 1024}
"""Candidates with the same number of operations and style, before these are drawn anew."""
PATIENCE = 128
"""Numbers of operations and styles of one example before giving up."""
_ODD = 0x4F1BBCDCBFA53E0B  # spreads consecutive numbers over the words


@dataclass(frozen=True)
class Sample:
    """B examples. N numbers and D steps at most, T tokens."""

    law: Law
    plans: Plans
    style: Tensor
    """(B,) int64: place in `STYLES`."""
    percent: Tensor
    """(B, N) bool: which numbers are written as percentages."""
    looks: Looks
    parts: Segments
    table: Table
    width: int | None
    """Most tokens of an example; None: any number."""

    def __len__(self) -> int:
        return len(self.plans)

    @cached_property
    def layout(self) -> Layout:
        """As wide as the longest example."""
        return self.lay_out(int(self.parts.length.max()) if len(self) else 0)

    def lay_out(self, width: int) -> Layout:
        """The first `width` tokens; without waiting for the device."""
        return lay_out(self.plans, self.percent, self.parts, self.table, width)

    def texts(self) -> list[str]:
        return texts(self.parts, self.table)


def sample(
    law: Law,
    rows: int | Tensor,
    seed: int = 0,
    *,
    split: str = "train",
    width: int | None = None,
    exclude: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Sample:
    """Examples of `split`: those numbered `rows` (B,) in the endless stream of (law, split, seed), or its first.

    Example i is a function of (law, split, seed, i) and of nothing else: the device, the batch and the other examples
    in it do not matter. width: how many tokens an example may have, and T; None: any number, and T is that of the
    longest. exclude: fingerprints that never occur.
    The host waits for the device once for every round of candidates, a few times per call.
    ValueError if the law and the width leave (nearly) nothing to draw.
    """
    device = torch.device(device)
    numbers = torch.arange(rows, device=device) if isinstance(rows, int) else rows.to(device)
    table_ = table(law.max_digits, str(device))
    base = mix(numbers * _ODD + key_of(seed, list(SPLITS).index(split)))
    of_rows, of_looks, of_tries = words(base, 3).unbind(-1)

    def write(candidates: Candidates, index: Tensor | None) -> tuple[Looks, Segments]:
        keys = of_looks if index is None else of_looks[index]
        looks = draw_looks(law, candidates.style, candidates.plans.negative, candidates.percent, keys)
        return looks, segments(candidates.plans, candidates.percent, looks, table_)

    def fits(candidates: Candidates, index: Tensor) -> Tensor:
        mark = fingerprint(candidates.plans)
        good = in_split(mark, split)
        if exclude is not None:
            good &= ~torch.isin(mark, exclude)
        if split == "train":  # nearly all
            return good & presentable(candidates.plans)
        (few,) = good.nonzero(as_tuple=True)
        return good.index_put((few,), presentable(candidates.plans[few]))

    def fits_width(candidates: Candidates, index: Tensor) -> Tensor:
        return fits(candidates, index) & (write(candidates, index)[1].length <= (width or 0))

    drawn = _empty(law, len(numbers), device)
    _draw(law, of_rows, of_tries, split, fits, drawn, torch.arange(len(numbers), device=device))
    looks, parts = write(drawn, None)
    if width is not None and width < longest(law):
        (too_long,) = (parts.length > width).nonzero(as_tuple=True)
        if len(too_long):
            _draw(law, of_rows, of_tries, split, fits_width, drawn, too_long)
            looks, parts = write(drawn, None)
    return Sample(law, drawn.plans, drawn.style, drawn.percent, looks, parts, table_, width)


def longest(law: Law) -> int:
    """No example has more tokens than this."""
    words_of_number = 1 + (7 if law.max_digits > 3 else 4) + 4 * (law.max_digits > 4) + 1 + law.max_decimals + 1
    redundant = (law.max_numbers + law.max_ops) * (law.p_redundant > 0)
    return law.max_numbers * words_of_number + 2 * law.max_ops + 4 * (law.max_ops + redundant)


def _draw(
    law: Law,
    of_rows: Tensor,
    of_tries: Tensor,
    split: str,
    fits: Callable[[Candidates, Tensor], Tensor],
    result: Candidates,
    wanted: Tensor,
) -> None:
    """Into `result`, for every example in `wanted` its first candidate that fits, however many are tried at once."""
    B, device = len(wanted), wanted.device
    tried, tries = 0, FIRST[split]
    while len(wanted):
        if tried > SAME[split] * PATIENCE:
            raise ValueError(
                f"{len(wanted)} of {B} examples do not fit after {tried} attempts each: {law} leaves too little, or "
                "the context length is too short for it."
            )
        index = wanted.repeat_interleave(tries)
        number = torch.arange(tried, tried + tries, device=device).repeat(len(wanted))
        rows = draw_rows(law, mix(of_rows[index] + number // SAME[split] * _ODD))
        candidates = draw_plans(law, rows, mix(of_tries[index] + number * _ODD))
        good = fits(candidates, index).view(-1, tries)
        first, found = good.long().argmax(1), good.any(1)
        chosen = (torch.arange(len(wanted), device=device) * tries + first)[found]
        for target, source in zip(_leaves(result), _leaves(pick(candidates, chosen)), strict=True):
            target[wanted[found]] = source
        wanted, tried = wanted[~found], tried + tries
        tries = max(1, min(2 * tries, AT_ONCE // max(1, len(wanted))))


def pick(candidates: Candidates, rows: Tensor) -> Candidates:
    """Those with these indices."""
    plans, *rest = candidates
    return Candidates(plans[rows], *(leaf[rows] for leaf in rest))


def _empty(law: Law, rows: int, device: torch.device) -> Candidates:
    """Room for one candidate per row."""
    number, step, flag, row = (
        lambda: torch.zeros(rows, law.max_numbers, dtype=torch.int64, device=device),
        lambda: torch.zeros(rows, law.max_ops, dtype=torch.int64, device=device),
        lambda: torch.zeros(rows, law.max_numbers, dtype=torch.bool, device=device),
        lambda: torch.zeros(rows, dtype=torch.int64, device=device),
    )
    return Candidates(Plans(flag(), number(), number(), row(), step(), step(), step()), flag(), row())


def _leaves(candidates: Candidates) -> list[Tensor]:
    plans, *rest = candidates
    return [*(getattr(plans, f.name) for f in fields(Plans)), *rest]

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
from gpt_dag.stream.draw import Candidates, Rows, draw_plans, draw_rows
from gpt_dag.stream.law import Law
from gpt_dag.stream.layout import Layout, Segments, lay_out, segments, texts
from gpt_dag.stream.looks import Looks, draw_looks
from gpt_dag.stream.tables import Table, table

CANDIDATES = {"train": 2, "val": 128, "test": 128}
"""Of every example that is still wanted, at once; training's are tried one at a time first."""
AT_ONCE = 1 << 16
"""Candidates in memory."""
PATIENCE = 20_000
"""Candidates of one example before giving up."""
_ODD = 0x4F1BBCDCBFA53E0B  # spreads consecutive numbers over the words


@dataclass(frozen=True)
class Sample:
    """B examples. N numbers and D steps at most, T tokens."""

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
        return texts(self.layout, self.table)


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
    table_ = table(law.max_digits, 2 * law.max_ops + 1, str(device))
    base = mix(numbers * _ODD + key_of(seed, list(SPLITS).index(split)))
    of_rows, of_looks, of_tries = words(base, 3).unbind(-1)
    kept = draw_rows(law, of_rows)

    def write(candidates: Candidates, index: Tensor | None) -> tuple[Looks, Segments]:
        style, keys = (kept.style, of_looks) if index is None else (kept.style[index], of_looks[index])
        looks = draw_looks(law, style, candidates.plans.negative, candidates.percent, keys)
        return looks, segments(candidates.plans, candidates.percent, looks, table_)

    def fits(candidates: Candidates, index: Tensor) -> Tensor:
        mark = fingerprint(candidates.plans)
        good = in_split(mark, split)
        if exclude is not None:
            good &= ~torch.isin(mark, exclude)
        if split == "train":  # nearly all
            return good & sound(candidates, index)
        (few,) = good.nonzero(as_tuple=True)
        return good.index_put((few,), sound(pick(candidates, few), index[few]))

    def sound(candidates: Candidates, index: Tensor) -> Tensor:
        good = presentable(candidates.plans)
        if width is not None and width < longest(law):
            good &= write(candidates, index)[1].length <= width
        return good

    drawn = _draw(law, kept, of_tries, split, fits)
    looks, parts = write(drawn, None)
    return Sample(drawn.plans, kept.style, drawn.percent, looks, parts, table_, width)


def longest(law: Law) -> int:
    """No example has more tokens than this."""
    words_of_number = 1 + (7 if law.max_digits > 3 else 4) + 4 * (law.max_digits > 4) + 1 + law.max_decimals + 1
    redundant = (law.max_numbers + law.max_ops) * (law.p_redundant > 0)
    return law.max_numbers * words_of_number + 2 * law.max_ops + 4 * (law.max_ops + redundant)


def _draw(law: Law, rows: Rows, keys: Tensor, split: str, fits: Callable[[Candidates, Tensor], Tensor]) -> Candidates:
    """For every row its first candidate that fits, however many are tried at once."""
    B = len(keys)
    wanted = torch.arange(B, device=keys.device)
    result, tried = _empty(law, rows.count), 0
    while len(wanted):
        most = max(1, AT_ONCE // len(wanted))
        tries = min(CANDIDATES[split], most) if tried or split != "train" else 1
        if tried > PATIENCE:
            raise ValueError(
                f"{len(wanted)} of {B} examples do not fit after {tried} attempts each: {law} leaves too little, or "
                "the context length is too short for it."
            )
        index = wanted.repeat_interleave(tries)
        number = torch.arange(tried, tried + tries, device=keys.device).repeat(len(wanted))
        candidates = draw_plans(law, Rows(*(r[index] for r in rows)), mix(keys[index] + number * _ODD))
        good = fits(candidates, index).view(-1, tries)
        first, found = good.long().argmax(1), good.any(1)
        chosen = (torch.arange(len(wanted), device=keys.device) * tries + first)[found]
        for target, source in zip(_leaves(result), _leaves(pick(candidates, chosen)), strict=True):
            target[wanted[found]] = source
        wanted, tried = wanted[~found], tried + tries
    return result


def pick(candidates: Candidates, rows: Tensor) -> Candidates:
    """Those with these indices."""
    return Candidates(candidates.plans[rows], candidates.percent[rows], candidates.reading[rows])


def _empty(law: Law, count: Tensor) -> Candidates:
    """Room for one candidate per row."""
    numbers, steps = count.new_zeros(len(count), law.max_numbers), count.new_zeros(len(count), law.max_ops)
    flags = numbers.bool()
    clones = (steps.clone() for _ in range(3))
    return Candidates(Plans(flags, numbers, numbers.clone(), count.clone(), *clones), flags.clone(), steps)


def _leaves(candidates: Candidates) -> list[Tensor]:
    return [*(getattr(candidates.plans, f.name) for f in fields(Plans)), candidates.percent, candidates.reading]

"""Tags to plans: assembly of what was said about single tokens, for a whole batch, with a guard at every joint.

B rows, T positions, N numbers, D steps. A plan is the network's alone; where ids are given, a text that it does not fit
makes it invalid (`spelling`), and changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_dag.plans import Plans
from gpt_dag.predictor.spelling import last_before, misread
from gpt_dag.reduce import reduce
from gpt_dag.tags import IGNORED, NEGATIVE, OPERATOR, PERCENT, PLACE, ROLE, VALUE, VALUES, Role


class Problem(IntEnum):
    """Why tags make no expression; 0: they do."""

    NONE = 0
    EMPTY = 1
    NO_OPERAND = 2
    NO_OPERATOR = 3
    UNOPENED = 4
    UNCLOSED = 5
    NO_DIGITS = 6
    DIGITS = 7
    ENDS_EARLY = 8
    MISREAD = 9


MESSAGES = {
    Problem.EMPTY: "there is no number",
    Problem.NO_OPERAND: "a number or an open parenthesis should stand here",
    Problem.NO_OPERATOR: "an operator or a closing parenthesis should stand here",
    Problem.UNOPENED: "this parenthesis closes nothing",
    Problem.UNCLOSED: "this parenthesis is never closed",
    Problem.NO_DIGITS: "this number has no digits",
    Problem.DIGITS: "these digits make no number of the size that the model knows",
    Problem.ENDS_EARLY: "the expression ends where an operand should follow",
    Problem.MISREAD: "this makes no sense here",
}


@dataclass(frozen=True)
class Prediction:
    """What was read in B rows."""

    plans: Plans
    """Where `invalid`, something that can be executed and means nothing."""
    problem: Tensor
    """(B,) int64 of `Problem`: the first one of the row."""
    token: Tensor
    """(B,) int64: the token that it was noticed at."""

    @property
    def invalid(self) -> Tensor:
        """(B,) bool"""
        return self.problem > 0

    def complaint(self, row: int) -> str | None:
        """What is wrong with a row, in words; None: nothing."""
        return MESSAGES.get(Problem(int(self.problem[row])))


def decode(tags: Tensor, max_digits: int, ids: Tensor | None = None) -> Prediction:
    """tags (B, T, 6), -1 in padding -> the plans that they describe.

    ids (B, T) of the word tokenizer: what the tags were said of. Without them, a word that no tag tells of is as if it
    were not there.
    """
    if not tags.shape[1]:
        tags, ids = F.pad(tags, (0, 0, 0, 1), value=IGNORED), None
    role, place, value = tags[..., ROLE], tags[..., PLACE], tags[..., VALUE]
    ends = role == Role.NUMBER_END
    count = ends.sum(1)
    N = max(int(count.max()), 1) if len(tags) else 1  # the only wait for a GPU
    exponent = max_digits - place  # of the power of ten of each digit
    digit = place > 0
    number = ends.cumsum(1) - ends.long()  # which number each token belongs to
    within = digit & (number < count[:, None])

    scaled, decimals = _numbers(within, number.clamp(max=N - 1), value, exponent, N)
    at_end = torch.where(ends, number, N)  # N: a place for what is no number's end
    negative = _collect(tags[..., NEGATIVE], at_end, N) > 0
    percent = _collect(tags[..., PERCENT], at_end, N) > 0
    operators, priority = _operators(role, tags[..., OPERATOR], N)
    used = count.clamp(min=1)
    plans = Plans(negative, scaled, decimals + 2 * percent.long(), used, *reduce(operators, priority, used))
    wrong = torch.zeros_like(digit) if ids is None else misread(ids, tags, exponent)
    return Prediction(plans, *_first_problem(role, within, digit, number, value, exponent, wrong))


def _numbers(within: Tensor, number: Tensor, value: Tensor, exponent: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """(B, N) scaled integers, and how many digits after the point each has."""
    said = torch.tensor(VALUES, device=value.device)[value.clamp(min=0)]
    powers = torch.tensor([10**e for e in range(19)], device=value.device)
    decimals = torch.where(within, -exponent, 0).clamp(min=0)
    B = len(value)
    places = torch.zeros(B, N, dtype=torch.int64, device=value.device)
    places = places.scatter_reduce(1, number, decimals, "amax")
    power = (exponent + places.gather(1, number)).clamp(min=0)
    scaled = torch.zeros_like(places).scatter_add(1, number, torch.where(within, said * powers[power], 0))
    size = torch.zeros_like(places, dtype=torch.float64)  # digits that make no number may sum to more than int64 holds
    size = size.scatter_add(1, number, torch.where(within, said.double() * powers[power].double(), 0.0))
    return scaled.masked_fill(size >= 2.0**62, 0), places


def _collect(column: Tensor, slot: Tensor, slots: int) -> Tensor:
    """(B, slots): what the column says where `slot` is below `slots`; 0 where nothing."""
    found = torch.zeros(len(column), slots + 1, dtype=torch.int64, device=column.device)
    return found.scatter(1, slot.clamp(max=slots), column)[:, :slots]


def _operators(role: Tensor, operator: Tensor, N: int) -> tuple[Tensor, Tensor]:
    """(B, N - 1) classes in reading order, and their priorities: depth of parentheses first, then * and /."""
    ends = role == Role.OPERATOR_END
    depth = ((role == Role.OPEN).long() - (role == Role.CLOSE).long()).cumsum(1)
    slot = torch.where(ends, ends.cumsum(1) - 1, N)
    classes = operator.clamp(min=0)
    return _collect(classes, slot, N - 1), _collect(2 * depth + (classes >= 2), slot, N - 1)


def _first_problem(
    role: Tensor, within: Tensor, digit: Tensor, number: Tensor, value: Tensor, exponent: Tensor, wrong: Tensor
) -> tuple[Tensor, Tensor]:
    """(B,) problem and the token that it was noticed at."""
    B, T = role.shape
    token = torch.arange(T, device=role.device)
    opens, closes = role == Role.OPEN, role == Role.CLOSE
    operand, operator = role == Role.NUMBER_END, role == Role.OPERATOR_END
    depth = (opens.long() - closes.long()).cumsum(1)

    # what structure stands before each token; at the start and after an operator or "(", an operand is due
    structural = role > 0
    before = last_before(structural, token)
    role_before = role.gather(1, before.clamp(min=0))
    due = (before < 0) | (role_before == Role.OPERATOR_END) | (role_before == Role.OPEN)

    # each digit must stand below the one before it in its number; "fifty" and "eight" share a place
    earlier = last_before(within, token)
    same = within & (earlier >= 0) & (number.gather(1, earlier.clamp(min=0)) == number)
    last_exponent = torch.where(same, exponent.gather(1, earlier.clamp(min=0)), 99)
    tens = value.gather(1, earlier.clamp(min=0)) >= 20  # classes: 20 is the first of the tens
    units = (value >= 1) & (value <= 9)
    joined = same & tens & units & (exponent == last_exponent)
    skips = same & (earlier == token - 1) & ~joined & (exponent != last_exponent - 1)  # no "hundred" in between
    unsaid = within & (value >= 10) & ((exponent < 0) | (exponent % 3 != 0))  # twelve stands at units or thousands
    unsaid |= within & operand & (exponent > 0)  # ends with a digit, but not at the units
    descends = (exponent < last_exponent) | joined
    gap = (exponent < 0) & (last_exponent > exponent + 1) & ~((exponent == -1) & same)
    any_digit = _since_last(within, operand, token)

    checks = [
        (Problem.NO_OPERAND, (operator | closes) & due),
        (Problem.NO_OPERATOR, (operand | opens) & ~due),
        (Problem.UNOPENED, closes & (depth < 0)),
        (Problem.UNCLOSED, opens & (depth == _least_later(depth))),
        (Problem.NO_DIGITS, operand & ~any_digit),
        (Problem.DIGITS, (digit & ~within) | (within & (~descends | gap | skips)) | unsaid),
        (Problem.MISREAD, wrong),
    ]
    problem = torch.zeros(B, dtype=torch.int64, device=role.device)
    place = torch.full((B,), T, dtype=torch.int64, device=role.device)
    for kind, found in checks:
        first = torch.where(found, token, T).amin(1)
        problem = torch.where(first < place, int(kind), problem)
        place = torch.minimum(place, first)
    last = _last(structural, token)[:, -1]
    role_last = role.gather(1, last.clamp(min=0)[:, None])[:, 0]
    unfinished = (problem == 0) & (last >= 0) & ((role_last == Role.OPERATOR_END) | (role_last == Role.OPEN))
    problem = torch.where(unfinished, int(Problem.ENDS_EARLY), problem)
    problem = torch.where((problem == 0) & (last < 0), int(Problem.EMPTY), problem)
    return problem, torch.where(place < T, place, last.clamp(min=0))


def _last(mask: Tensor, token: Tensor) -> Tensor:
    """(B, T): the last token up to each that the mask holds for; -1: none."""
    return torch.where(mask, token, -1).cummax(1).values


def _since_last(mask: Tensor, end: Tensor, token: Tensor) -> Tensor:
    """(B, T): whether the mask holds for some token after the last `end` before each, up to it."""
    return _last(mask, token) > last_before(end, token)


def _least_later(depth: Tensor) -> Tensor:
    """(B, T): the least depth from each token on."""
    return -((-depth).flip(1).cummax(1).values).flip(1)

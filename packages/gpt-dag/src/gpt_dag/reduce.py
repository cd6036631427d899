"""Operators in reading order, with priorities, to steps in the order of evaluation: one shunting yard for a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def reduce(operator: Tensor, priority: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The steps of B expressions: operator, left and right (B, D) int64, as `Plans` has them with N = D + 1 numbers.

    operator: (B, D) int64 class ids in reading order, of which the first `count - 1` are used; priority: (B, D) int64,
    below 2^40 in magnitude; count: (B,) int64 numbers of each expression, 1 to D + 1.

    Takes the operator of the highest priority, the leftmost of equals, and joins what stands on its two sides; and so
    on. With priority 2 * depth + [operator is * or /] these are the usual rules, grouping to the left; with random
    priorities the trees are Cartesian trees of random permutations. No host synchronisation, a loop over D only.
    """
    B, D = operator.shape
    N, device = D + 1, operator.device
    place = torch.arange(D, device=device)
    taken = torch.iinfo(torch.int64).min
    key = (priority * D - place).masked_fill(place >= count[:, None] - 1, taken)  # no two are equal
    owner = torch.arange(N, device=device).repeat(B, 1)  # the node that holds each number so far
    steps, lefts, rights = [], [], []
    result = torch.zeros(B, 1, dtype=torch.int64, device=device)
    for step in range(D):
        best, at = key.max(1, keepdim=True)
        used = best > taken
        left, right = owner.gather(1, at), owner.gather(1, at + 1)
        steps.append(torch.where(used, operator.gather(1, at), -1))
        lefts.append(torch.where(used, left, result))
        rights.append(torch.where(used, right, result))
        owner = torch.where(used & ((owner == left) | (owner == right)), N + step, owner)
        result = torch.where(used, N + step, result)
        key = key.scatter(1, at, taken)
    if not D:
        return operator, operator, operator
    return torch.cat(steps, 1), torch.cat(lefts, 1), torch.cat(rights, 1)

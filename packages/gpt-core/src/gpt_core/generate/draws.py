"""One token per row, where every row has its own settings and its own randomness.

Dimensions: N rows, V vocabulary.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .sampling import Sampling, filtered_logits


@dataclass(frozen=True)
class Draw:
    """How one row's next token is drawn."""

    sampling: Sampling
    random: random.Random
    banned_ids: tuple[int, ...] = ()
    """Tokens that are never drawn."""
    occurred: Collection[int] = field(default=())
    """Tokens that the repetition penalty counts as seen; read only where the penalty is on."""


def draw(logits_NV: Tensor, rows: Sequence[Draw]) -> list[int]:
    """A token for every row.

    A row takes one number from its own generator per call, and none when it is greedy: what it draws does not depend
    on the rows beside it (but for the rounding of their common matrix products).
    """
    tokens = [0] * len(rows)
    alike: dict[tuple[Sampling, tuple[int, ...]], list[int]] = {}
    for i, row in enumerate(rows):
        alike.setdefault((row.sampling, row.banned_ids), []).append(i)
    for (sampling, banned), places in alike.items():
        whole = len(places) == len(rows)
        picked_NV = (logits_NV if whole else logits_NV[places]).float()
        if banned:
            picked_NV = picked_NV.index_fill(1, torch.tensor(banned, device=logits_NV.device), float("-inf"))
        seen_NV = _seen(picked_NV, [rows[i].occurred for i in places]) if sampling.repetition_penalty != 1 else None
        picked_NV = filtered_logits(picked_NV, sampling, seen_NV)
        chosen_N = picked_NV.argmax(-1) if sampling.greedy else _invert(picked_NV, [rows[i].random for i in places])
        for i, token in zip(places, chosen_N.tolist(), strict=True):
            tokens[i] = token
    return tokens


def _invert(logits_NV: Tensor, generators: Sequence[random.Random]) -> Tensor:
    """Inverse transform sampling: the first token at which the cumulative probability passes a uniform number."""
    cumulative_NV = torch.softmax(logits_NV, dim=-1).double().cumsum(dim=-1)
    total_N1 = cumulative_NV[:, -1:]
    uniform_N1 = torch.tensor([[g.random()] for g in generators], dtype=torch.float64, device=logits_NV.device)
    below_total_N1 = torch.nextafter(total_N1, torch.zeros_like(total_N1))
    return torch.searchsorted(cumulative_NV, torch.minimum(uniform_N1 * total_N1, below_total_N1), right=True).squeeze(
        1
    )


def _seen(logits_NV: Tensor, occurred: Sequence[Collection[int]]) -> Tensor:
    seen_NV = torch.zeros(logits_NV.shape, dtype=torch.bool)
    for row, ids in enumerate(occurred):
        seen_NV[row, [token for token in ids if token < logits_NV.shape[1]]] = True
    return seen_NV.to(logits_NV.device)

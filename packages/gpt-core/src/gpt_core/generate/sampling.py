"""From next-token logits to a token: temperature, top-k, top-p and repetition penalty as pure functions.

Shapes: B rows, V vocabulary.  Every function takes and returns logits_BV and leaves its argument alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-6
"""A temperature under this is read as "take the most likely token": dividing by it would overflow."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. The default draws from the model's own distribution."""

    temperature: float = 1.0
    """Logits are divided by it; 0 (anything under 1e-6) is greedy."""
    top_k: int | None = None
    """Keep the k most likely tokens, and those that tie with the k-th; None keeps all."""
    top_p: float | None = None
    """Keep the fewest tokens whose probabilities reach p together (nucleus sampling); None keeps all."""
    repetition_penalty: float = 1.0
    """Over 1: tokens that already occurred (prompt included) become less likely; 1 is off."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be a finite number ≥ 0 (0 = greedy), got {self.temperature!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None to keep every token, got {self.top_k!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], or be None to keep every token, got {self.top_p!r}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(
                f"repetition_penalty must be a finite number over 0 (1 = off), got {self.repetition_penalty!r}"
            )

    @property
    def greedy(self) -> bool:
        """True when no randomness is left."""
        return self.temperature < GREEDY_BELOW


def penalize_repeats(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Make tokens marked in the bool mask seen_BV less likely: positive logits ÷ penalty, others × penalty.

    Source: Keskar et al. 2019 (CTRL), https://arxiv.org/abs/1909.05858, in the sign-aware form now usual.
    """
    pushed_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return torch.where(seen_BV, pushed_BV, logits_BV)


def keep_top_k(logits_BV: Tensor, k: int) -> Tensor:
    """-inf for every token less likely than the k-th; tokens that tie with it stay, so more than k may."""
    kth_B1 = torch.topk(logits_BV, min(k, logits_BV.size(-1)), dim=-1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < kth_B1, float("-inf"))


def keep_top_p(logits_BV: Tensor, p: float) -> Tensor:
    """-inf for every token outside the smallest set, most likely first, with probability p or more.

    At least one token stays; p = 1 keeps all. Equal probabilities are taken in the order of their ids.
    Source: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751.
    """
    if p >= 1:
        return logits_BV
    sorted_BV, order_BV = torch.sort(logits_BV, dim=-1, descending=True, stable=True)
    probs_BV = torch.softmax(sorted_BV, dim=-1)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV  # probability of the tokens more likely than this one
    drop_BV = torch.empty_like(logits_BV, dtype=torch.bool).scatter_(-1, order_BV, before_BV >= p)
    return logits_BV.masked_fill(drop_BV, float("-inf"))


def filtered_logits(logits_BV: Tensor, sampling: Sampling, seen_BV: Tensor | None = None) -> Tensor:
    """Penalty, temperature, top-k, top-p, in this order: softmax of the result is what gets drawn from."""
    if sampling.repetition_penalty != 1:
        assert seen_BV is not None, "a repetition penalty needs to know which tokens occurred"
        logits_BV = penalize_repeats(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.greedy:
        return logits_BV
    if sampling.temperature != 1:
        logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = keep_top_k(logits_BV, sampling.top_k)
    if sampling.top_p is not None:
        logits_BV = keep_top_p(logits_BV, sampling.top_p)
    return logits_BV


def sample(
    logits_BV: Tensor,
    sampling: Sampling,
    generator: torch.Generator | None = None,
    seen_BV: Tensor | None = None,
) -> Tensor:
    """One token id per row, (B,) int64. All rows draw from one generator, row 0 first."""
    logits_BV = filtered_logits(logits_BV.float(), sampling, seen_BV)
    if sampling.greedy:
        return logits_BV.argmax(dim=-1)
    return torch.multinomial(torch.softmax(logits_BV, dim=-1), 1, generator=generator).squeeze(1)

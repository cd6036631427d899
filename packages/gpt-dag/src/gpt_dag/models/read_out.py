"""The numeric read-out head: lets a position take from an exact value the character that it needs.

Dimensions: B batch, T tokens, L characters of a value, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpt_core.models.linear import Linear

CHARACTERS = "0123456789.-"
END = len(CHARACTERS)
"""Stands once after the last character."""
BLANK = END + 1
LENGTH = 24
"""Characters kept of a value: sign, 13 digits (10^12 is the largest), point, up to 8 decimals, END."""


class ReadOut(nn.Module):
    """One attention head from the hidden states to the characters of a value in decimal notation.

    A query is made of h and of how many tokens ago the value appeared, a key of a character's place in the text, what
    is read of the character itself: so what is learned about one value holds for all. It begins as a copier (see
    `init_dag_weights`): the j-th token from the "=" on compares best with the j-th character.
    """

    def __init__(self, width: int):
        super().__init__()
        self.character = nn.Embedding(BLANK + 1, width)
        self.place = nn.Parameter(torch.zeros(LENGTH, width))
        self.since = nn.Parameter(torch.zeros(LENGTH + 1, width))
        self.query = Linear(width, width, bias=False)
        self.out = Linear(width, width, bias=False)

    def forward(self, h_BTD: Tensor, characters_BTL: Tensor, since_BT: Tensor) -> Tensor:
        """(B, T, D). characters: of the value that each position may read (`characters_of`); since: how many tokens
        ago that value appeared."""
        query_BTD = self.query(h_BTD) + self.since[since_BT.clamp(0, LENGTH)]
        scores_BTL = (query_BTD @ self.place.to(query_BTD.dtype).mT).float() * h_BTD.shape[-1] ** -0.5
        blank_BTL = characters_BTL == BLANK
        blank_BTL = blank_BTL & ~blank_BTL.all(-1, keepdim=True)
        weights_BTL = scores_BTL.masked_fill(blank_BTL, -torch.inf).softmax(-1)
        # sum the weights of equal characters first: (B, T, 14) instead of (B, T, L, D)
        seen_BTC = torch.zeros(*since_BT.shape, BLANK + 1, device=h_BTD.device)
        seen_BTC = seen_BTC.scatter_add(-1, characters_BTL, weights_BTL)
        return self.out(seen_BTC.to(h_BTD.dtype) @ self.character.weight.to(h_BTD.dtype))


def characters_of(texts: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Classes (n, LENGTH) of the characters of decimal texts, and which of them there are, (n,) bool: not None ones and
    those that are too long."""
    rows, present = [], []
    for text in texts:
        there = text is not None and len(text) < LENGTH
        row = [CHARACTERS.index(c) for c in text] + [END] if there and text is not None else []
        rows.append(row + [BLANK] * (LENGTH - len(row)))
        present.append(there)
    return torch.tensor(rows, dtype=torch.int64).view(-1, LENGTH), torch.tensor(present, dtype=torch.bool)

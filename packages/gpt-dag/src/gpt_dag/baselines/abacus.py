"""Abacus embeddings: a digit knows its place in its number.

B rows, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpt_core.models import GPT, GPTConfig
from gpt_core.models.attention import KVCache
from gpt_dag.tokens import DIGITS, ID

FIRST, LAST = ID[DIGITS[0]], ID[DIGITS[-1]]
POINT = ID["."]


class AbacusGPT(GPT):
    """A GPT whose tokens also hold a learned vector of the digit's place (McLeish et al. 2024, arXiv:2405.17399).

    The first digit of a number has place 1, the next 2, ...; other tokens have none. Numbers are written with their
    lowest digit first (the paper's, whose places so have equal weights in all numbers); a decimal point keeps counting.
    In training all places of a row are shifted by the same random number below `most_shift`, so that places beyond
    those of training numbers have been trained too.
    """

    supports_cache = supports_packing = False

    def __init__(self, config: GPTConfig, places: int = 24, most_shift: int = 12):
        super().__init__(config)
        self.most_shift = most_shift
        self.abacus = torch.nn.Embedding(places + most_shift + 1, config.n_embd, padding_idx=0)
        with torch.no_grad():
            self.abacus.weight[1:].normal_(0.0, config.init_std)

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        if cache is not None or cu_seqlens is not None:
            raise ValueError("Abacus embeddings are for plain rows: no key/value cache and no packed documents")
        place_BT = digit_places(ids_BT)
        if self.training:
            shift_B1 = torch.randint(self.most_shift, (len(ids_BT), 1), device=ids_BT.device)
            place_BT = torch.where(place_BT > 0, place_BT + shift_B1, 0)
        place_BT = place_BT.clamp(max=self.abacus.num_embeddings - 1)
        x_BTD, rotary = self.position(self.embed(ids_BT) + self.abacus(place_BT), None)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotary, None, None)
        return self.norm(x_BTD)


def digit_places(ids_BT: Tensor) -> Tensor:
    """(B, T): 1 for the first digit of a number, 2 for its next, ...; 0 for what is no digit."""
    digit = (ids_BT >= FIRST) & (ids_BT <= LAST)
    inside = digit | (ids_BT == POINT)
    count = digit.long().cumsum(1)
    before = torch.where(inside, 0, count).cummax(1).values  # digits up to the last token outside of numbers
    return torch.where(digit, count - before, 0)

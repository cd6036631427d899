"""Prefix tokens: the longest token that begins as another one does (record 88).

A model that is unsure whether " predict" or " prediction" comes next is right about " pred" either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

NONE = -1
"""In place of the prefix of a token that has none; targets of this number do not count."""


def prefix_table(ranks: Mapping[bytes, int], vocab_size: int) -> Tensor:
    """(V,) int64: for every token the longest other one whose bytes are the beginning of its own, else −1.

    ranks: bytes of a token -> its id. Sorted, a token stands after all its prefixes and before what does not share
    them; so those of the token at hand are a stack.
    """
    table = torch.full((vocab_size,), NONE, dtype=torch.int64)
    stack: list[tuple[bytes, int]] = []
    for spelling, token in sorted(ranks.items()):
        while stack and not spelling.startswith(stack[-1][0]):
            stack.pop()
        if stack:
            table[token] = stack[-1][1]
        stack.append((spelling, token))
    return table


def table_of(tokenizer: Any) -> Tensor:
    """The table of a tokenizer that has `ranks`, as `gpt_data`'s byte-level BPEs do. ValueError for others."""
    ranks = getattr(tokenizer, "ranks", None)
    if not isinstance(ranks, Mapping):
        raise ValueError(
            f"prefix tokens need a byte-level BPE tokenizer, whose tokens are bytes; {type(tokenizer).__name__} has no "
            "ranks: use prefix=false"
        )
    return prefix_table(ranks, max(tokenizer.vocab_size, max(ranks.values()) + 1))

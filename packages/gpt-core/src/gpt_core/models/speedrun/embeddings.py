"""What a token brings into the stream: its embedding smeared with the one before, and its bigram's.

Dimensions: B rows, T tokens, D width, E channels of the bigram table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import GATE_CHANNELS

HASH = (36313, 27191)
"""Factors of the token itself and of the one before it. Products are int32; beyond id 59,137 they wrap around."""


def bigram_ids(ids_BT: Tensor, rows: int, starts_BT: Tensor | None = None) -> Tensor:
    """Row of the bigram table for every token, int32.

        b[t] = ((36313 · id[t]) XOR (27191 · id[t − 1])) mod (rows − 1);   b[0] = rows − 1, the reserved one

    starts_BT: tokens that have no predecessor either.
    """
    ids_BT = ids_BT.int()
    hashed_BT = torch.bitwise_xor(HASH[0] * ids_BT[:, 1:], HASH[1] * ids_BT[:, :-1]) % (rows - 1)
    bigrams_BT = F.pad(hashed_BT, (1, 0), value=rows - 1)
    return bigrams_BT if starts_BT is None else bigrams_BT.masked_fill(starts_BT, rows - 1)


def bigram_signs(ids_BT: Tensor, table: Tensor, starts_BT: Tensor | None = None) -> Tensor:
    """(B, T, E): row (id[t] XOR id[t − 1]) mod 8192 of a table of signs; row 0 where there is no predecessor."""
    row_BT = F.pad(torch.bitwise_xor(ids_BT[:, 1:], ids_BT[:, :-1]) % len(table), (1, 0))
    return table[row_BT if starts_BT is None else row_BT.masked_fill(starts_BT, 0)]


def add_bigram(x_BTD: Tensor, factor: Tensor, bigram_BTE: Tensor) -> Tensor:
    """x with factor · bigram added to its first E channels."""
    added = factor * bigram_BTE
    return x_BTD + F.pad(added, (0, x_BTD.shape[-1] - added.shape[-1]))


def smear(e_BTD: Tensor, gate: Tensor, scale: Tensor, starts_BT: Tensor | None = None) -> Tensor:
    """e[t] + scale · σ(gate · e[t, :12]) · e[t − 1]; the first token of a row stays as it is, and those of starts_BT.

    gate (1, 12), scale 0-d. Raw embeddings are gate, source and target: the norm comes after.
    """
    weight_BT1 = scale * torch.sigmoid(F.linear(e_BTD[:, 1:, :GATE_CHANNELS], gate))
    if starts_BT is not None:
        weight_BT1 = weight_BT1.masked_fill(starts_BT[:, 1:, None], 0)
    return torch.cat((e_BTD[:, :1], e_BTD[:, 1:] + weight_BT1 * e_BTD[:, :-1]), 1)


def document_starts(cu_seqlens: Tensor, T: int) -> Tensor:
    """(1, T) bool: the first token of every document of a packed row."""
    marks = torch.zeros(T + 1, dtype=torch.bool, device=cu_seqlens.device)
    return marks.index_fill(0, cu_seqlens.long(), True)[None, :T]

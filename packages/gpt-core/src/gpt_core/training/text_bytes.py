"""What a loss needs to count bits per byte: how much text each token stands for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class TextBytes:
    """Bytes of text of every token, those of special tokens being 0 (`token_bytes()` of a tokenizer)."""

    def __init__(self, bytes_V: Tensor):
        self.bytes_V = bytes_V

    @classmethod
    def of(cls, tokenizer: Any) -> TextBytes | None:
        """None for tokenizers whose tokens are no certain bytes, or that cannot say."""
        ask = getattr(tokenizer, "token_bytes", None)
        sizes = None if ask is None else ask()
        return None if sizes is None else cls(torch.as_tensor(sizes))

    def measure(self, nats: Tensor, targets: Tensor) -> Tensor:
        """(2,): nats of the targets that stand for text, and their bytes.

        nats, targets: of one shape, nats being 0 where targets are negative (ignored). Bits per byte are
        nats / (ln 2 · bytes); targets of 0 bytes, the special tokens, are in neither sum, as in nanochat.
        """
        if self.bytes_V.device != targets.device:
            self.bytes_V = self.bytes_V.to(targets.device)
        known = len(self.bytes_V) - 1  # data may have ids that its tokenizer has not
        sizes = self.bytes_V[targets.clamp(0, known)].masked_fill((targets < 0) | (targets > known), 0)
        return torch.stack([nats.masked_fill(sizes == 0, 0).sum(), sizes.sum().to(nats.dtype)])

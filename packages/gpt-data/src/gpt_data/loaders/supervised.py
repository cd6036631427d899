"""A dataset of which only some tokens count as targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dataset import DatasetInfo
from ..tokenizers import SpecialTokenizer

MOST = 1 << 20
"""Tokens from which the bytes of a target are counted."""


@dataclass(frozen=True)
class SupervisedInfo(DatasetInfo):
    """A `DatasetInfo` whose `bytes_per_token` is that of the tokens that its mask counts.

    A loss is then a mean over these, and its bits are those of their text: of what the assistant says.
    """

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes of text per counted token, from the first MOST tokens; special tokens count and have no text."""
        count, masks = min(MOST, self.tokens(split)), self.mask_stream(split)
        assert masks is not None, "nothing is left out of this dataset"
        ids, counted = self.stream(split).read(0, count), masks.read(0, count).astype(bool)
        tokenizer = self.load_tokenizer()
        first_special = tokenizer.base.vocab_size if isinstance(tokenizer, SpecialTokenizer) else tokenizer.vocab_size
        text = counted & (ids < first_special)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], text, [False]])))  # of what is said at once
        said = (ids[start:end].tolist() for start, end in edges.reshape(-1, 2))
        return sum(len(tokenizer.decode(run).encode()) for run in said) / max(1, int(counted.sum()))

"""The same examples in GPT-2's tokens: tags move to the token that ends where the word or digit ends."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gpt_dag.stream.layout import Layout
from gpt_dag.stream.sample import Sample
from gpt_dag.tags import IGNORED, PLACE, ROLE, Role
from gpt_data.tokenizers import BPETokenizer, gpt2_tokenizer
from gpt_data.tokenizers.bpe import GPT2_PATTERN

PATTERN = GPT2_PATTERN.replace(r"\p{N}++", r"\p{N}")
PAD = 0
"""The id of "!", which no expression has."""


@lru_cache(maxsize=1)
def digit_tokenizer() -> BPETokenizer:
    """GPT-2's vocabulary, but every digit is a token of its own.

    So each has one place and one value, as in words. GPT-2 itself makes one token of " 2000" and two of "16045".
    DatasetError if GPT-2's files are nowhere, ImportError without tiktoken; both say what to install.
    """
    return BPETokenizer("gpt2-digits", gpt2_tokenizer().ranks, PATTERN)


def in_bpe(examples: Sample, tokenizer: BPETokenizer) -> Layout:
    """ids and tags (B, T, 6) of the same texts, padded with 0; `source` counts nothing here and is 0.

    One call of tiktoken for all texts, then tensors: the characters at which words end are known from the layout,
    those at which tokens end from the vocabulary.
    """
    words = examples.layout
    flat = torch.from_numpy(tokenizer.encode_documents(examples.texts()).astype(np.int64))
    ends_text = flat == tokenizer.eot_id
    ends = _sizes(tokenizer)[flat].cumsum(0)[~ends_text]  # characters of all texts together
    of_text = ends_text.cumsum(0)[~ends_text]
    length = torch.bincount(of_text, minlength=len(examples))
    tags = torch.full((len(ends), words.tags.shape[-1]), IGNORED)
    tags[:, ROLE], tags[:, PLACE] = int(Role.NONE), 0
    source = words.source.cpu()
    # the table's texts begin with a space each, which was taken off
    word_ends = examples.table.widths.cpu()[source].view(-1).cumsum(0).view(source.shape)
    word_ends -= torch.arange(1, len(source) + 1)[:, None]
    tags[torch.searchsorted(ends, word_ends[source > 0])] = words.tags.cpu()[source > 0]
    place = torch.arange(len(ends)) - (length.cumsum(0) - length)[of_text]
    ids = _padded(flat[~ends_text], of_text, place, length, PAD)
    return Layout(ids, _padded(tags, of_text, place, length, IGNORED), length, torch.zeros_like(ids))


@lru_cache(maxsize=1)
def _sizes(tokenizer: BPETokenizer) -> Tensor:
    """(vocabulary,) bytes of every token, which are characters here; none of end-of-text."""
    sizes = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
    for token, rank in tokenizer.ranks.items():
        sizes[rank] = len(token)
    return sizes


def _padded(values: Tensor, row: Tensor, place: Tensor, length: Tensor, fill: int) -> Tensor:
    """(B, T, ...) with `values` at (row, place)."""
    room = values.new_full((len(length), int(length.max()), *values.shape[1:]), fill)
    room[row, place] = values
    return room

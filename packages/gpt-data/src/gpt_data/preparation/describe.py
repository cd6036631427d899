"""What a file of token ids holds, found by reading it once: for datasets that another program wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..dataset import DTYPES, VERIFY_TOKENS, Boundary, ShardInfo, SplitInfo, check_ids
from ..shards import TokenStream
from ..tokenizers import BPETokenizer, CharTokenizer


def describe_files(
    paths: Sequence[Path],
    tokens: Sequence[int],
    dtype: str,
    tokenizer: CharTokenizer | BPETokenizer,
    boundary: Boundary | None,
    offset: int = 0,
) -> SplitInfo:
    """Count, hash and check the files of one split; `tokens` of each, `offset` bytes before the first id.

    Errors: DatasetError names the file that holds an id outside the vocabulary or that is shorter than it should be.
    """
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    shards = tuple(_describe(path, n, dtype, offset, counts) for path, n in zip(paths, tokens, strict=True))
    documents = 1 if boundary is None else max(int(counts[boundary.id]), 1)
    return SplitInfo(sum(tokens), int(counts @ _byte_lengths(tokenizer)), documents, shards)


def _describe(path: Path, tokens: int, dtype: str, offset: int, counts: np.ndarray) -> ShardInfo:
    stream = TokenStream([path], [tokens], DTYPES[dtype], [offset])
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(offset))
    for position in range(0, tokens, VERIFY_TOKENS):
        ids = stream.read(position, min(VERIFY_TOKENS, tokens - position))
        check_ids(ids, len(counts), str(path))
        counts += np.bincount(ids, minlength=len(counts))
        digest.update(ids.data)
    return ShardInfo(path.name, tokens, digest.hexdigest(), offset)


def _byte_lengths(tokenizer: CharTokenizer | BPETokenizer) -> np.ndarray:
    """UTF-8 bytes of every id; 0 for special ones."""
    if isinstance(tokenizer, CharTokenizer):
        return np.array([len(char.encode()) for char in tokenizer.chars])
    lengths = np.zeros(tokenizer.vocab_size, np.int64)
    for token, rank in tokenizer.ranks.items():
        lengths[rank] = len(token)
    return lengths

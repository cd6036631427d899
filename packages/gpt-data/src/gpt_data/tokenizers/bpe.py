"""Byte-pair encoding: trained by rustbpe, encoded by tiktoken."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from .base import check_known, encode_each, unencodable, write_description

EOT = "<|endoftext|>"
RANKS_FILE = "ranks.tiktoken"
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SPLIT_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"""
    r"""|\s*[\r\n]|\s+(?!\S)|\s+"""
)
"""How trained vocabularies cut text before merging: GPT-4's rule, digits in threes, runs of spaces in one piece."""
SMALLEST_VOCABULARY = 257
TEXTS_AT_ONCE = 128
"""Texts in memory while training."""


class BPETokenizer:
    """A byte-level BPE vocabulary and its end-of-text token, which has the last id.

    name: what datasets record; ranks: bytes of every token -> id, from 0 without gaps; pattern: the regular
    expression that cuts text into pieces which are merged on their own.
    """

    def __init__(self, name: str, ranks: dict[bytes, int], pattern: str) -> None:
        self.name, self.pattern, self.ranks = name, pattern, ranks
        self.eot_id = len(ranks)
        self.vocab_size = len(ranks) + 1
        self.special_tokens = {EOT: self.eot_id}
        self._encoding = import_tiktoken().Encoding(
            name,
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens=self.special_tokens,
            explicit_n_vocab=self.vocab_size,
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Learn `vocab_size` tokens (end-of-text included) from `texts`, on all cores, the same every time."""
        if vocab_size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {vocab_size}, a byte-level BPE needs at least {SMALLEST_VOCABULARY}: 256 bytes and "
                f"{EOT}."
            )
        try:
            import rustbpe
        except ImportError as error:
            raise _needs_extra("training a BPE vocabulary", "rustbpe") from error
        trainer = rustbpe.Tokenizer()  # ty: ignore[missing-attribute]  (compiled, no stubs)
        trainer.train_from_iterator(
            iter(texts), vocab_size=vocab_size - 1, buffer_size=TEXTS_AT_ONCE, pattern=SPLIT_PATTERN
        )
        ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
        return cls(f"bpe-{len(ranks) + 1}", ranks, SPLIT_PATTERN)

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode(text, allowed_special="all")

    def encode_array(self, text: str) -> np.ndarray:
        try:
            return self._encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError as error:
            raise unencodable(error, text) from None

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One call of tiktoken, which holds no interpreter lock while it works."""
        if any(EOT in text for text in texts):  # as plain text: it must not become the token
            return encode_each(self, texts)
        joined = EOT.join([*texts, ""])
        try:
            return self._encoding.encode_to_numpy(joined, allowed_special={EOT}, disallowed_special=())
        except UnicodeEncodeError:
            return encode_each(self, texts)  # says in which text, and where

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        return self._encoding.decode(list(ids), errors="replace")

    def token_bytes(self) -> np.ndarray:
        sizes = np.zeros(self.vocab_size, np.int32)
        sizes[list(self.ranks.values())] = [len(token) for token in self.ranks]
        return sizes

    def save(self, folder: Path | str) -> None:
        lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in _by_rank(self.ranks))
        content = b"".join(lines)
        folder = write_description(
            folder, "bpe", name=self.name, pattern=self.pattern, ranks_sha256=hashlib.sha256(content).hexdigest()
        )
        (folder / RANKS_FILE).write_bytes(content)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> BPETokenizer:
        path = folder / RANKS_FILE
        if not path.is_file():
            raise DatasetError(f"{path}: is missing. Prepare the dataset again.")
        lines = path.read_bytes()
        if (got := hashlib.sha256(lines).hexdigest()) != content["ranks_sha256"]:
            raise DatasetError(
                f"{path}: sha256 is {got}, expected {content['ranks_sha256']}. Prepare the dataset again."
            )
        ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines.splitlines())}
        return cls(content["name"], ranks, content["pattern"])


def _by_rank(ranks: dict[bytes, int]) -> list[tuple[bytes, int]]:
    return sorted(ranks.items(), key=lambda item: item[1])


def import_tiktoken():
    try:
        import tiktoken
    except ImportError as error:
        raise _needs_extra("a BPE tokenizer", "tiktoken") from error
    return tiktoken


def _needs_extra(what: str, package: str) -> ImportError:
    return ImportError(f"{what} needs the package {package}: pip install 'gpt-data[bpe]'")

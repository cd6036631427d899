"""Byte-pair encoding: trained here (rustbpe) or GPT-2's, encoded by tiktoken."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from .base import check_known, encode_each, write_description

EOT = "<|endoftext|>"
RANKS_FILE = "ranks.tiktoken"
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
SPLIT_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"""
    r"""|\s*[\r\n]|\s+(?!\S)|\s+"""
)
"""How trained vocabularies cut text before merging: GPT-4's rule, digits in threes, runs of spaces in one piece."""
GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
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
        self._encoding = _tiktoken().Encoding(
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
        return self._encoding.encode_to_numpy(text, disallowed_special=())

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """One call of tiktoken, which holds no interpreter lock while it works."""
        if any(EOT in text for text in texts):  # as plain text: it must not become the token
            return encode_each(self, texts)
        joined = EOT.join([*texts, ""])
        return self._encoding.encode_to_numpy(joined, allowed_special={EOT}, disallowed_special=())

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        return self._encoding.decode(list(ids), errors="replace")

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


def gpt2_tokenizer(folder: Path | str | None = None) -> BPETokenizer:
    """GPT-2's vocabulary of 50257.

    folder: where vocab.bpe and encoder.json lie (default `$GPT2_BPE_DIR`); without one, tiktoken's copy is used,
    which it downloads once. Errors: DatasetError if neither is there.
    """
    folder = folder or os.environ.get("GPT2_BPE_DIR")
    ranks = _gpt2_ranks_from(Path(folder)) if folder else _gpt2_ranks_from_tiktoken()
    return BPETokenizer("gpt2", ranks, GPT2_PATTERN)


def _gpt2_ranks_from(folder: Path) -> dict[bytes, int]:
    for name, expected in GPT2_FILES.items():
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"{path}: is missing. GPT-2's vocabulary is {' and '.join(GPT2_FILES)}.")
        if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
            raise DatasetError(f"{path}: sha256 is {got}, expected {expected}: not GPT-2's file.")
    vocab, encoder = (str(folder / name) for name in GPT2_FILES)
    _tiktoken()
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    return data_gym_to_mergeable_bpe_ranks(vocab, encoder)


def _gpt2_ranks_from_tiktoken() -> dict[bytes, int]:
    _tiktoken()
    from tiktoken_ext.openai_public import gpt2

    try:
        return gpt2()["mergeable_ranks"]
    except OSError as error:  # every error of requests is one
        raise DatasetError(
            f"GPT-2's vocabulary is not on this machine and cannot be downloaded ({type(error).__name__}). Set "
            "GPT2_BPE_DIR to a folder that holds vocab.bpe and encoder.json (from "
            "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/), or train a vocabulary on your text: "
            "--tokenizer bpe."
        ) from error


def _by_rank(ranks: dict[bytes, int]) -> list[tuple[bytes, int]]:
    return sorted(ranks.items(), key=lambda item: item[1])


def _tiktoken():
    try:
        import tiktoken
    except ImportError as error:
        raise _needs_extra("a BPE tokenizer", "tiktoken") from error
    return tiktoken


def _needs_extra(what: str, package: str) -> ImportError:
    return ImportError(f"{what} needs the package {package}: pip install 'gpt-data[bpe]'")

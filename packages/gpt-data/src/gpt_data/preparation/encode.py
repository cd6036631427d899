"""Texts to ids: the work that runs in threads, most of it in tiktoken without the interpreter's lock."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..dataset import DTYPES, check_ids
from ..tokenizers import Tokenizer
from .documents import Piece
from .tables import Rows


@dataclass(frozen=True)
class Encoded:
    """What one job adds to the files of a part."""

    arrays: Mapping[str, np.ndarray]
    """Name of a file without its number (`train`, `val`, `train_mask`) -> what comes at its end."""
    counts: Counter[str] = field(default_factory=Counter)
    """`train/bytes`, `train/documents`, ... and the documents that were left out, by reason."""
    weight: int = 0
    """Bytes of input that are done, for the display."""


@dataclass(frozen=True)
class TextEncoder:
    """How the texts of a dataset become ids."""

    tokenizer: Tokenizer
    dtype: str
    separate: bool
    """Every document ends with the end-of-text id."""
    val_one_in: int
    """One document of a table in so many is for validation, unless the table belongs to a split."""

    def pieces(self, split: str, pieces: Sequence[Piece]) -> Encoded:
        """Consecutive pieces of files; what ends a document is encoded together with the whole documents after it."""
        arrays: list[np.ndarray] = []
        endings: list[str] = []

        def flush() -> None:
            if endings:
                arrays.append(self.tokenizer.encode_documents(endings))
                endings.clear()

        for piece in pieces:
            if self.separate and piece.last:
                endings.append(piece.read())
            else:
                flush()
                arrays.append(self.tokenizer.encode_array(piece.read()))
        flush()
        size = sum(piece.bytes for piece in pieces)
        counts = Counter({f"{split}/bytes": size, f"{split}/documents": sum(piece.last for piece in pieces)})
        return Encoded({split: self._finish(np.concatenate(arrays), pieces[0].document.key)}, counts, size)

    def rows(self, split: str | None, rows: Rows, where: str) -> Encoded:
        """Rows of a table, each a document; empty ones are left out. split: None if their hashes decide."""
        texts: dict[str, list[str]] = {}
        counts: Counter[str] = Counter()
        for text in rows.values:
            if not text:
                counts["empty"] += 1
                continue
            content = text.encode()
            side = split or split_of(content, self.val_one_in)
            texts.setdefault(side, []).append(text)
            counts[f"{side}/bytes"] += len(content)
            counts[f"{side}/documents"] += 1
        arrays = {side: self._finish(self.tokenizer.encode_documents(found), where) for side, found in texts.items()}
        return Encoded(arrays, counts, rows.weight)

    def _finish(self, ids: np.ndarray, where: str) -> np.ndarray:
        check_ids(ids, self.tokenizer.vocab_size, where)
        return ids.astype(DTYPES[self.dtype])


def split_of(content: bytes, val_one_in: int) -> str:
    """The side of a document: a function of its text alone."""
    return "val" if is_held_out(hashlib.sha256(content).hexdigest(), val_one_in) else "train"


def is_held_out(sha256: str, val_one_in: int) -> bool:
    return int(sha256, 16) % val_one_in == 0

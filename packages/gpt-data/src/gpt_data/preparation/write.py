"""Encoding one shard of text into one `.bin` file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..dataset import DTYPES, check_ids
from ..durable import write_json
from ..tokenizers import Tokenizer
from .plan import Shard


@dataclass(frozen=True)
class ShardRecord:
    """Proof that a shard is finished, and what `dataset.json` will say about it."""

    tokens: int
    bytes: int
    documents: int
    sha256: str

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> ShardRecord | None:
        """The record of a finished shard, None if it is not finished."""
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def write_shard(
    shard: Shard, tokenizer: Tokenizer, dtype: str, separate: bool, folder: Path, on_bytes: Callable[[int], None]
) -> ShardRecord:
    """Encode `shard` into `folder/<name>.bin`: written aside, synced, renamed.

    separate: every document ends with the end-of-text id; on_bytes: called with the bytes of each piece that is done.
    """
    path, digest, tokens = folder / f"{shard.name}.bin", hashlib.sha256(), 0
    aside = path.with_suffix(".tmp")
    assert tokenizer.eot_id is not None or not separate, f"{tokenizer.name} has no end-of-text id"
    end = np.uint32(tokenizer.eot_id or 0)
    with open(aside, "wb") as file:
        for piece in shard.pieces:
            ids = tokenizer.encode_array(piece.read())
            if separate and piece.last:
                ids = np.append(ids, end)
            check_ids(ids, tokenizer.vocab_size, piece.document.key)
            content = ids.astype(DTYPES[dtype]).data
            file.write(content)
            digest.update(content)
            tokens += len(ids)
            on_bytes(piece.bytes)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
    documents = sum(piece.last for piece in shard.pieces)
    return ShardRecord(tokens, shard.bytes, documents, digest.hexdigest())

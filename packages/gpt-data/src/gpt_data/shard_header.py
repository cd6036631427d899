"""The header of the speedrun's token shards: 256 int32, which are magic number, version, number of ids, zeros.

Format: llm.c, modded-nanogpt (data/cached_fineweb10B.py). The ids behind it are uint16.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import DatasetError

MAGIC = 20240520
VERSION = 1
HEADER = np.dtype("<i4")
HEADER_BYTES = 256 * HEADER.itemsize
ID_BYTES = 2


def read_header(path: Path) -> int:
    """The number of tokens of a shard. DatasetError if the header is none, or the file has not the size it says."""
    size = path.stat().st_size
    if size < HEADER_BYTES:
        raise DatasetError(f"{path}: has {size} bytes, a speedrun shard begins with a header of {HEADER_BYTES}.")
    magic, version, tokens = np.fromfile(path, HEADER, 3).tolist()
    if magic != MAGIC:
        raise DatasetError(
            f"{path}: begins with {magic}, a speedrun shard begins with {MAGIC}. Ids without a header are nanoGPT's: "
            "`uv run apps/prepare nanogpt DIR`."
        )
    if version != VERSION:
        raise DatasetError(f"{path}: is of version {version}, this reads version {VERSION}.")
    expected = HEADER_BYTES + tokens * ID_BYTES
    if tokens < 1 or size != expected:
        raise DatasetError(
            f"{path}: has {size} bytes, its header says {tokens} tokens, {expected} bytes. It is truncated or damaged: "
            "fetch it again."
        )
    return tokens

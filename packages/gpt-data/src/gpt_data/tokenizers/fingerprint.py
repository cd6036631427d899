"""What tells two tokenizers apart that may have the same name and size."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from .base import Tokenizer


def fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 of the files that the tokenizer is saved as: equal if and only if all ids mean the same."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()

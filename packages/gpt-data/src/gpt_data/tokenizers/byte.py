"""One id per UTF-8 byte, and four special ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .base import check_known, encode_each, unencodable, write_description

SPECIALS = {"<EOS>": 256, "<PAD>": 257, "<UNK>": 258, "<BOS>": 259}
SPECIAL_TEXT = {i: text for text, i in SPECIALS.items()}
SPECIAL_PATTERN = re.compile("(" + "|".join(SPECIALS) + ")")


class ByteTokenizer:
    """256 bytes and `<EOS>` `<PAD>` `<UNK>` `<BOS>`: a vocabulary of 260 that knows all text."""

    name = "byte"
    vocab_size = 260
    eot_id = SPECIALS["<EOS>"]
    special_tokens = SPECIALS

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in SPECIAL_PATTERN.split(text):
            ids.extend([SPECIALS[part]] if part in SPECIALS else _utf8(part))
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        return np.frombuffer(_utf8(text), np.uint8).astype(np.uint32)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        parts = (SPECIAL_TEXT[i].encode() if i >= 256 else bytes([i]) for i in ids)
        return b"".join(parts).decode(errors="replace")

    def token_bytes(self) -> np.ndarray:
        return (np.arange(self.vocab_size) < 256).astype(np.int32)

    def save(self, folder: Path | str) -> None:
        write_description(folder, "byte")

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> ByteTokenizer:
        return cls()


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise unencodable(error, text) from None

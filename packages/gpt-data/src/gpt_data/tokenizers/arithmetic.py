"""The 32 symbols of arithmetic texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .base import encode_each, write_description
from .char import CharTokenizer

ALPHABET = "0123456789$_|=.Eei+-*/^%\\~ \n\r<>,"
SPECIALS = {"$": 10, "_": 11, "|": 12}
"""Begin, filling, end."""


class ArithmeticTokenizer:
    """nanuGPT's arithmetic vocabulary: a digit is its own id, `|` (12) ends a text, `_` (11) fills up rows."""

    name = "arithmetic"
    vocab_size = len(ALPHABET)
    eot_id = SPECIALS["|"]
    pad_id = SPECIALS["_"]
    special_tokens = SPECIALS

    def __init__(self) -> None:
        self._symbols = CharTokenizer(ALPHABET)

    def encode(self, text: str) -> list[int]:
        return self._symbols.encode(text)

    def encode_array(self, text: str) -> np.ndarray:
        for special in SPECIALS:
            if special in text:
                raise ValueError(f"{special!r} is a special token of this vocabulary and no part of a text: {text!r}.")
        return self._symbols.encode_array(text)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        return self._symbols.decode(ids)

    def token_bytes(self) -> None:
        """These symbols are no text."""

    def save(self, folder: Path | str) -> None:
        write_description(folder, "arithmetic")

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> ArithmeticTokenizer:
        return cls()

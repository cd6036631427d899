"""One id per character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .base import check_known, encode_each, write_description

EOT = "<|endoftext|>"


class CharTokenizer:
    """Ids are positions in an alphabet; nanoGPT's `shakespeare_char` has 65 of them.

    chars: the alphabet in the order of ids, each character once; eot: give the id after the last character to the
    end of a text, for texts of several documents.
    """

    name = "char"

    def __init__(self, chars: str, eot: bool = False) -> None:
        if not chars or len(set(chars)) != len(chars):
            raise ValueError(f"an alphabet needs at least one character and each only once, got {chars!r}.")
        self.chars = chars
        self.eot_id = len(chars) if eot else None
        self.special_tokens = {EOT: len(chars)} if eot else {}
        codes = _code_points(chars)
        self._ids = np.argsort(codes).astype(np.uint32)
        self._codes = codes[self._ids]

    @classmethod
    def train(cls, texts: Iterable[str], eot: bool = False) -> CharTokenizer:
        """The sorted characters of `texts`."""
        return cls("".join(sorted(set().union(*map(set, texts)))), eot)

    @property
    def vocab_size(self) -> int:
        return len(self.chars) + (self.eot_id is not None)

    def encode(self, text: str) -> list[int]:
        if self.eot_id is None or EOT not in text:
            return self.encode_array(text).tolist()
        parts = [self.encode_array(part).tolist() for part in text.split(EOT)]
        return parts[0] + [i for part in parts[1:] for i in (self.eot_id, *part)]

    def encode_array(self, text: str) -> np.ndarray:
        codes = _code_points(text)
        places = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        unknown = self._codes[places] != codes
        if unknown.any():
            char = text[int(unknown.argmax())]
            shown = repr(self.chars) if len(self.chars) <= 100 else f"{len(self.chars)} characters"
            raise ValueError(
                f"character {char!r} (U+{ord(char):04X}) is not in this vocabulary: {shown}. Leave it out, or use a "
                "tokenizer that knows all text (byte, bpe)."
            )
        return self._ids[places]

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        return "".join(EOT if i == self.eot_id else self.chars[i] for i in ids)

    def token_bytes(self) -> np.ndarray:
        sizes = [len(char.encode("utf-8", "surrogatepass")) for char in self.chars]
        return np.array(sizes + [0] * (self.eot_id is not None), np.int32)

    def save(self, folder: Path | str) -> None:
        write_description(folder, "char", chars=self.chars, eot=self.eot_id is not None)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> CharTokenizer:
        return cls(content["chars"], content["eot"])


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")

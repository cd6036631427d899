"""Equations modulo a prime: numbers and operations as ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .base import check_known, encode_each, write_description

EOS = "<|eos|>"
OPERATIONS = (
    "(x//y)if(y%2==1)else(x-y)",
    "x+y",
    "x-y",
    "x/y",
    "x^2+xy+y^2",
    "x^2+xy+y^2+x",
    "x^2+y^2",
    "x^3+xy",
    "x^3+xy^2+x",
)
"""In the order of their ids, which is that of sorting."""


class GrokkingTokenizer:
    """`<|eos|>` 0, `=` 1, the operations from 2 on, the numbers 0 to prime - 1 from 11 on.

    Texts have their tokens apart by spaces: `<|eos|> 3 x/y 5 =`.
    """

    def __init__(self, prime: int) -> None:
        if not _is_prime(prime):
            raise ValueError(f"prime is {prime!r}, expected a prime number, e.g. 97.")
        self.prime = prime
        self.name = f"grokking-{prime}"
        self._spellings = (EOS, "=", *OPERATIONS, *map(str, range(prime)))
        self._ids = {spelling: i for i, spelling in enumerate(self._spellings)}
        self.vocab_size = len(self._spellings)
        self.eot_id = 0
        self.special_tokens = {EOS: 0}
        self.first_number = self._ids["0"]
        """Number n is id `first_number + n`."""

    def id_of(self, spelling: str) -> int:
        """ValueError for a spelling that is in no equation of this vocabulary."""
        if spelling not in self._ids:
            raise ValueError(
                f"{spelling!r} is not in this vocabulary, which has {EOS}, =, the numbers 0 to {self.prime - 1} and "
                f"the operations {', '.join(OPERATIONS)}, apart by spaces."
            )
        return self._ids[spelling]

    def encode(self, text: str) -> list[int]:
        return [self.id_of(spelling) for spelling in text.split()]

    def encode_array(self, text: str) -> np.ndarray:
        if EOS in text:
            raise ValueError(f"{EOS} is the end of a text and no part of one: {text!r}.")
        return np.array(self.encode(text), np.uint32)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        return " ".join(self._spellings[i] for i in ids)

    def token_bytes(self) -> None:
        """These symbols are no text."""

    def save(self, folder: Path | str) -> None:
        write_description(folder, "grokking", prime=self.prime)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> GrokkingTokenizer:
        return cls(content["prime"])


def _is_prime(number: int) -> bool:
    return isinstance(number, int) and number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))

"""Any tokenizer with more special tokens on top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from .base import Tokenizer, check_known, write_description

BASE_FOLDER = "base"


class SpecialTokenizer:
    """`base` with the tokens of a chat template, whose ids follow the last one of `base`.

    Text becomes the same ids as in `base`; so a model trained with it needs no more than new rows.

    spellings: the new tokens in the order of their ids; template: the name of the template that they are of, recorded
    in the saved files.
    """

    def __init__(self, base: Tokenizer, spellings: Sequence[str], template: str) -> None:
        taken = [spelling for spelling in spellings if spelling in base.special_tokens]
        if not spellings or taken or len(set(spellings)) != len(spellings):
            raise ValueError(
                f"special tokens need one or more spellings, each once, that {base.name!r} does not have yet; got "
                f"{list(spellings)}" + (f", where {taken[0]!r} is taken." if taken else ".")
            )
        self.base, self.spellings, self.template = base, tuple(spellings), template
        self.name = f"{base.name}+{template}"
        self.eot_id = base.eot_id
        self.vocab_size = base.vocab_size + len(spellings)
        self._added = {spelling: base.vocab_size + i for i, spelling in enumerate(spellings)}
        self.special_tokens = {**base.special_tokens, **self._added}
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._pattern.split(text):
            ids.extend([self._added[part]] if part in self._added else self.base.encode(part))
        return ids

    def encode_array(self, text: str) -> np.ndarray:
        return self.base.encode_array(text)

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return self.base.encode_documents(texts)

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        first = self.base.vocab_size
        parts: list[str] = []
        for added, group in groupby(ids, lambda i: i >= first):
            run = list(group)
            parts.extend([self.spellings[i - first] for i in run] if added else [self.base.decode(run)])
        return "".join(parts)

    def token_bytes(self) -> np.ndarray | None:
        known = self.base.token_bytes()
        return None if known is None else np.pad(known, (0, len(self.spellings)))

    def save(self, folder: Path | str) -> None:
        folder = write_description(folder, "special", template=self.template, special_tokens=list(self.spellings))
        self.base.save(folder / BASE_FOLDER)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> SpecialTokenizer:
        from .load import load_tokenizer

        return cls(load_tokenizer(folder / BASE_FOLDER), content["special_tokens"], content["template"])

"""The protocol of tokenizers and the file that describes a saved one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

TOKENIZER_FILE = "gpt_tokenizer.json"
"""Not `tokenizer.json`: that is Hugging Face's format."""
TOKENIZER_FORMAT = 1


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size), special ids included."""
        ...

    @property
    def eot_id(self) -> int | None:
        """The id between documents; None if the vocabulary has none."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; the spelling of a special token (`<|endoftext|>`, `<EOS>`) becomes that token."""
        ...

    def encode_array(self, text: str) -> np.ndarray:
        """uint32 ids of `text` as plain text: never a special token. What corpora are encoded with."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 (a character cut in half) become U+FFFD."""
        ...

    def save(self, folder: Path | str) -> None:
        """Write the files from which `load_tokenizer(folder)` makes an equal tokenizer."""
        ...


def write_description(folder: Path | str, kind: str, **fields: Any) -> Path:
    """Write `gpt_tokenizer.json` into `folder` (made if missing)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": TOKENIZER_FORMAT, "kind": kind, **fields}
    (folder / TOKENIZER_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder

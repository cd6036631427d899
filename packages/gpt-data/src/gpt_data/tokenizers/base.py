"""The protocol of tokenizers and the file that describes a saved one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Spelling -> id of the tokens that stand for no text; end-of-text is one of them where there is one."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; the spelling of a special token (`<|endoftext|>`, `<EOS>`) becomes that token."""
        ...

    def encode_array(self, text: str) -> np.ndarray:
        """uint32 ids of `text` as plain text: never a special token. What corpora are encoded with."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """uint32: `encode_array(text)` and `eot_id` for every text. ValueError if there is no end-of-text token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 (a character cut in half) become U+FFFD.

        ValueError for an id that is not in the vocabulary.
        """
        ...

    def token_bytes(self) -> np.ndarray | None:
        """[vocab_size] int32: bytes of text that each token stands for, 0 for special tokens.

        None where tokens stand for no certain bytes: bits per byte mean nothing then.
        """
        ...

    def save(self, folder: Path | str) -> None:
        """Write the files from which `load_tokenizer(folder)` makes an equal tokenizer."""
        ...


def encode_each(tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """What `encode_documents` means; tokenizers that can do it at once do so."""
    end = np.array([require_eot(tokenizer)], np.uint32)
    parts = [part for text in texts for part in (tokenizer.encode_array(text), end)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint32)


def require_eot(tokenizer: Tokenizer) -> int:
    """The id that ends documents. ValueError if the vocabulary has none."""
    if tokenizer.eot_id is None:
        raise ValueError(
            f"the tokenizer {tokenizer.name!r} has no end-of-text token, so documents cannot be told apart. Encode one "
            "text with encode_array, or make the vocabulary with end-of-text (CharTokenizer(chars, eot=True))."
        )
    return tokenizer.eot_id


def unencodable(error: UnicodeEncodeError, text: str) -> ValueError:
    """What to raise for a text that is not Unicode: half of a surrogate pair has no UTF-8."""
    place = error.start
    return ValueError(
        f"character {place} of the text is {text[place]!r}, half of a surrogate pair, which no UTF-8 stands for (after "
        f"{text[max(place - 20, 0) : place]!r}). Read the text with errors='replace', or encode "
        "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')."
    )


def check_known(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """ValueError if one of `ids` is not in the vocabulary; -1, the target that a loss ignores, is in none."""
    if len(ids) and not (min(ids) >= 0 and max(ids) < tokenizer.vocab_size):
        unknown = next(i for i in ids if not 0 <= i < tokenizer.vocab_size)
        raise ValueError(
            f"id {unknown} is not in the vocabulary of {tokenizer.name!r}, which has {tokenizer.vocab_size} (0 to "
            f"{tokenizer.vocab_size - 1}). Decode with the tokenizer that the ids were made with."
        )


def write_description(folder: Path | str, kind: str, **fields: Any) -> Path:
    """Write `gpt_tokenizer.json` into `folder` (made if missing)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"format": TOKENIZER_FORMAT, "kind": kind, **fields}
    (folder / TOKENIZER_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder

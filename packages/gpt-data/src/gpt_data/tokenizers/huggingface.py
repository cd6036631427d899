"""Hugging Face tokenizers: any `tokenizer.json`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from .base import check_known, encode_each, write_description

HF_FILE = "tokenizer.json"
HF_CONFIG_FILE = "tokenizer_config.json"
USUAL_EOTS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


class HuggingFaceTokenizer:
    """A tokenizer of the package `tokenizers`.

    content: the text of a `tokenizer.json`; name: what datasets record; eot, pad: the spellings of the tokens that end
    a text and that fill up rows. Truncation, padding and the tokens that a post-processor puts around texts are left
    out: a corpus is its text.
    """

    def __init__(self, content: str, name: str | None = None, eot: str | None = None, pad: str | None = None) -> None:
        self._content = content
        self._parsing, self._plain = _open(content), _open(content)
        self._plain.encode_special_tokens = True  # as text, that is
        self.vocab_size = 1 + max(self._parsing.get_vocab(with_added_tokens=True).values())
        self.name = name or f"hf-{self.vocab_size}"
        added = self._parsing.get_added_tokens_decoder()
        self.special_tokens = {token.content: i for i, token in added.items() if token.special}
        self.eot, self.pad = eot, pad
        self.eot_id, self.pad_id = self._special("eot", eot), self._special("pad", pad)

    def _special(self, what: str, spelling: str | None) -> int | None:
        if spelling is None:
            return None
        if (found := self._parsing.token_to_id(spelling)) is None:
            raise DatasetError(
                f"{what} is {spelling!r}, which is not in the vocabulary of {self.name!r}. Its special tokens: "
                f"{', '.join(self.special_tokens) or 'none'}."
            )
        self.special_tokens[spelling] = found
        return found

    @classmethod
    def open(cls, path: Path | str, name: str | None = None, eot: str | None = None) -> HuggingFaceTokenizer:
        """Read a `tokenizer.json`, or a folder that holds one.

        eot: the spelling of the token that ends a text; default: `eos_token` of the `tokenizer_config.json` beside it,
        else the usual one that is among its special tokens, else none.
        """
        path = Path(path)
        file = path / HF_FILE if path.is_dir() else path
        if not file.is_file():
            raise DatasetError(f"{file}: is missing. A fast Hugging Face tokenizer writes it with save_pretrained.")
        content = file.read_text(encoding="utf-8")
        config = _read_json(file.with_name(HF_CONFIG_FILE))
        pad = _spelling(config.get("pad_token")) or ((_read_json(file).get("padding") or {}).get("pad_token"))
        made = cls(content, name, eot or _spelling(config.get("eos_token")), pad)
        if made.eot is None:
            usual = [spelling for spelling in USUAL_EOTS if spelling in made.special_tokens]
            return cls(content, name, usual[0], pad) if usual else made
        return made

    def encode(self, text: str) -> list[int]:
        return self._parsing.encode(text, add_special_tokens=False).ids

    def encode_array(self, text: str) -> np.ndarray:
        ids = np.array(self._plain.encode(text, add_special_tokens=False).ids, np.uint32)
        if self.eot_id is not None and (ids == self.eot_id).any():
            raise ValueError(
                f"the vocabulary of {self.name!r} has no other way to write {self.eot!r} than by the token that ends a "
                "text. Leave this text out, or use another tokenizer."
            )
        return ids

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        return encode_each(self, texts)

    def decode(self, ids: Sequence[int]) -> str:
        check_known(self, ids)
        return self._parsing.decode(list(ids), skip_special_tokens=False)

    def token_bytes(self) -> np.ndarray | None:
        """Of byte-level vocabularies, whose tokens are spelled with a character for each byte; None for others."""
        if not _has_byte_level(json.loads(self._content).get("decoder")):
            return None
        added = self._parsing.get_added_tokens_decoder()
        sizes = np.zeros(self.vocab_size, np.int32)
        for spelling, token in self._parsing.get_vocab(with_added_tokens=True).items():
            sizes[token] = len(spelling.encode()) if token in added else len(spelling)
        sizes[list(self.special_tokens.values())] = 0
        return sizes

    def save(self, folder: Path | str) -> None:
        content = self._content.encode()
        digest = hashlib.sha256(content).hexdigest()
        folder = write_description(folder, "hf", name=self.name, eot=self.eot, pad=self.pad, sha256=digest)
        (folder / HF_FILE).write_bytes(content)

    @classmethod
    def load(cls, folder: Path, content: dict[str, Any]) -> HuggingFaceTokenizer:
        path = folder / HF_FILE
        if not path.is_file():
            raise DatasetError(f"{path}: is missing. Prepare the dataset again.")
        text = path.read_bytes()
        if (got := hashlib.sha256(text).hexdigest()) != content["sha256"]:
            raise DatasetError(f"{path}: sha256 is {got}, expected {content['sha256']}. Prepare the dataset again.")
        return cls(text.decode(), content["name"], content["eot"], content["pad"])


def _open(content: str):
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            "a Hugging Face tokenizer needs the package tokenizers: pip install 'gpt-data[hf]'"
        ) from error
    try:
        made = Tokenizer.from_str(content)
    except Exception as error:  # its only class of error
        raise DatasetError(f"this {HF_FILE} cannot be understood: {error}") from error
    made.no_truncation()
    made.no_padding()
    return made


def _has_byte_level(decoder: dict[str, Any] | None) -> bool:
    """Whether a `decoder` of a tokenizer.json, or one of its sequence, turns characters back into bytes."""
    each = (decoder or {}).get("decoders", [decoder or {}])
    return any(one.get("type") == "ByteLevel" for one in each)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}: is no JSON ({error}).") from error


def _spelling(token: str | dict[str, Any] | None) -> str | None:
    """Of a special token in a `tokenizer_config.json`, where it is a text or an object."""
    return token["content"] if isinstance(token, dict) else token

"""Opening a saved tokenizer."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .arithmetic import ArithmeticTokenizer
from .base import TOKENIZER_FILE, TOKENIZER_FORMAT, Tokenizer
from .bpe import BPETokenizer
from .byte import ByteTokenizer
from .char import CharTokenizer
from .grokking import GrokkingTokenizer
from .huggingface import HF_FILE, HuggingFaceTokenizer
from .special import SpecialTokenizer

KINDS: dict[str, Callable[[Path, dict[str, Any]], Tokenizer]] = {
    "arithmetic": ArithmeticTokenizer.load,
    "bpe": BPETokenizer.load,
    "byte": ByteTokenizer.load,
    "char": CharTokenizer.load,
    "grokking": GrokkingTokenizer.load,
    "hf": HuggingFaceTokenizer.load,
    "special": SpecialTokenizer.load,
}

TRUSTED = ("gpt_dag",)
"""Packages above this one whose tokenizers may be loaded, as their class's dotted path for a kind."""


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer that was saved in `folder`, or that of a Hugging Face folder (one with a tokenizer.json).

    DatasetError if the files are missing or damaged.
    """
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file() and (Path(folder) / HF_FILE).is_file():
        return HuggingFaceTokenizer.open(folder)
    if not path.is_file():
        raise DatasetError(
            f"{path}: is missing. A tokenizer folder is written by `Tokenizer.save(folder)`, or is one of Hugging "
            f"Face's with a {HF_FILE}."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != TOKENIZER_FORMAT:
            raise DatasetError(
                f"{path}: format is {content['format']!r}, this version of gpt-data reads {TOKENIZER_FORMAT}. "
                "Update gpt-data."
            )
        return _loader(content["kind"])(Path(folder), content)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: cannot be understood ({error!r}). Prepare the dataset again.") from error


def _loader(kind: str) -> Callable[[Path, dict[str, Any]], Tokenizer]:
    """What reads a kind. KeyError for one that is not known, or would run code from elsewhere."""
    module, _, name = kind.rpartition(".")
    if module.partition(".")[0] not in TRUSTED:
        return KINDS[kind]
    try:
        return getattr(importlib.import_module(module), name).load
    except (ImportError, AttributeError) as error:
        raise DatasetError(f"the tokenizer {kind} is not installed: {error}") from error

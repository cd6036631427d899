"""Opening a saved tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .base import TOKENIZER_FILE, TOKENIZER_FORMAT, Tokenizer
from .bpe import BPETokenizer
from .byte import ByteTokenizer
from .char import CharTokenizer
from .special import SpecialTokenizer

KINDS: dict[str, Callable[[Path, dict[str, Any]], Tokenizer]] = {
    "bpe": BPETokenizer.load,
    "byte": ByteTokenizer.load,
    "char": CharTokenizer.load,
    "special": SpecialTokenizer.load,
}


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer that was saved in `folder`. DatasetError if the files are missing or damaged."""
    path = Path(folder) / TOKENIZER_FILE
    if not path.is_file():
        raise DatasetError(f"{path}: is missing. A tokenizer folder is written by `Tokenizer.save(folder)`.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != TOKENIZER_FORMAT:
            raise DatasetError(
                f"{path}: format is {content['format']!r}, this version of gpt-data reads {TOKENIZER_FORMAT}. "
                "Update gpt-data."
            )
        return KINDS[content["kind"]](Path(folder), content)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: cannot be understood ({error!r}). Prepare the dataset again.") from error

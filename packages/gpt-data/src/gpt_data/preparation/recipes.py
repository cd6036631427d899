"""The datasets that have a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatasetError
from .download import download, file_sha256
from .sources import Source, stdlib_source, text_source

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


@dataclass(frozen=True)
class Recipe:
    """How a named dataset is made."""

    summary: str
    tokenizer: str
    """Used if the user names none."""
    source: Callable[[Sequence[Path], Path], Source]
    """(texts given by the user, folder for downloads) -> documents."""


def _stdlib(texts: Sequence[Path], downloads: Path) -> Source:
    if texts:
        raise DatasetError("stdlib takes no texts, it reads the Python library. For your own: text PATH...")
    return stdlib_source()


def _shakespeare(texts: Sequence[Path], downloads: Path) -> Source:
    if len(texts) > 1:
        raise DatasetError(f"shakespeare is a single file, got {len(texts)}. For several: text PATH...")
    if not texts:
        texts = [download(SHAKESPEARE_URL, SHAKESPEARE_SHA256, downloads / "tinyshakespeare.txt")]
    if texts[0].is_file() and file_sha256(texts[0]) == SHAKESPEARE_SHA256:
        return text_source(texts, "Tiny Shakespeare", "public domain")
    return text_source(texts)


def _text(texts: Sequence[Path], downloads: Path) -> Source:
    if not texts:
        raise DatasetError("text needs files or folders: text PATH...")
    return text_source(texts)


RECIPES: dict[str, Recipe] = {
    "stdlib": Recipe("the Python library on this machine: code and its reference (no network)", "bpe", _stdlib),
    "shakespeare": Recipe(
        "Tiny Shakespeare, 1.1 MB, in GPT-2's vocabulary (download, or --text FILE)", "gpt2", _shakespeare
    ),
    "shakespeare_char": Recipe(
        "Tiny Shakespeare, one id per character (download, or --text FILE)", "char", _shakespeare
    ),
    "text": Recipe("your own files and folders: text PATH...", "bpe", _text),
}
PREPARED_ON_FIRST_USE = ("stdlib",)
"""Names that need neither a network nor arguments."""

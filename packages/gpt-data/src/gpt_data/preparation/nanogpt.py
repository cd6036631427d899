"""Describing a folder that nanoGPT prepared: train.bin, val.bin and perhaps meta.pkl."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import DTYPES, TOKENIZER_FOLDER, VERIFY_TOKENS, Boundary, DatasetInfo, ShardInfo, SplitInfo, check_ids
from ..errors import DatasetError
from ..shards import TokenStream
from ..tokenizers import BPETokenizer, CharTokenizer, gpt2_tokenizer
from .download import file_sha256


def describe_nanogpt(folder: str | Path, gpt2_bpe: str | Path | None = None) -> DatasetInfo:
    """Make a nanoGPT folder a dataset: add `dataset.json` and the tokenizer's files, leave the rest as it is.

    With meta.pkl the tokenizer is its table of characters, without one it is GPT-2's (gpt2_bpe: where its files are).
    Reads everything once to count, to hash and to check that every id is in the vocabulary.
    Errors: DatasetError names the file and what is wrong with it.
    """
    folder = Path(folder)
    if (folder / "meta.pkl").is_file():
        tokenizer, dtype = _read_meta(folder / "meta.pkl")
    else:
        tokenizer, dtype = gpt2_tokenizer(gpt2_bpe), "uint16"
    splits = {split: _describe(folder / f"{split}.bin", dtype, tokenizer) for split in ("train", "val")}
    tokenizer.save(folder / TOKENIZER_FOLDER)
    info = DatasetInfo(
        path=folder,
        name=folder.name,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.name,
        splits=splits,
        source={"recipe": "nanogpt", "description": f"nanoGPT folder {folder.name}", "license": "unknown"},
        options={},
        boundary=None if tokenizer.eot_id is None else Boundary(tokenizer.eot_id, "end"),
    )
    info.save()
    return info


def _describe(path: Path, dtype: str, tokenizer: CharTokenizer | BPETokenizer) -> SplitInfo:
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; a nanoGPT folder has train.bin and val.bin. Run its prepare.py.")
    tokens, rest = divmod(path.stat().st_size, DTYPES[dtype].itemsize)
    if rest or not tokens:
        raise DatasetError(f"{path}: has {path.stat().st_size} bytes, expected {dtype} ids. Run nanoGPT's prepare.py.")
    stream = TokenStream([path], [tokens], DTYPES[dtype])
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    for position in range(0, tokens, VERIFY_TOKENS):
        ids = np.empty(min(VERIFY_TOKENS, tokens - position), stream.dtype)
        stream.read_into(ids, position)
        check_ids(ids, tokenizer.vocab_size, str(path))
        counts += np.bincount(ids, minlength=len(counts))
    ends = 0 if tokenizer.eot_id is None else int(counts[tokenizer.eot_id])
    shard = ShardInfo(path.name, tokens, file_sha256(path))
    return SplitInfo(tokens, int(counts @ _byte_lengths(tokenizer)), max(ends, 1), (shard,))


def _byte_lengths(tokenizer: CharTokenizer | BPETokenizer) -> np.ndarray:
    """UTF-8 bytes of every id; 0 for the end of a text."""
    if isinstance(tokenizer, CharTokenizer):
        return np.array([len(char.encode()) for char in tokenizer.chars])
    lengths = np.zeros(tokenizer.vocab_size, np.int64)
    for token, rank in tokenizer.ranks.items():
        lengths[rank] = len(token)
    return lengths


def nanogpt_tokenizer(path: str | Path) -> CharTokenizer:
    """The tokenizer of a nanoGPT meta.pkl, read without running code. DatasetError if the file is something else."""
    return _read_meta(Path(path))[0]


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers and strings; anything that would run code is an error."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module_name}.{global_name}, which could run code")


def _read_meta(path: Path) -> tuple[CharTokenizer, str]:
    """The table of characters, and the dtype of the ids (uint16 where the file does not say)."""
    try:
        meta = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        chars = [meta["itos"][i] for i in range(meta["vocab_size"])]
        dtype = meta.get("dtype", "uint16")
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: is no nanoGPT table of characters ({error!r}). Run nanoGPT's data/*_char/prepare.py again."
        ) from error
    if not all(isinstance(char, str) and len(char) == 1 for char in chars):
        raise DatasetError(f"{path}: holds entries that are not single characters. Run nanoGPT's prepare.py again.")
    if dtype not in DTYPES:
        raise DatasetError(f"{path}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    return CharTokenizer("".join(chars)), dtype

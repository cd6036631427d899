"""Describing a folder that nanoGPT prepared: train.bin, val.bin and perhaps meta.pkl."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from pathlib import Path
from typing import Any

from ..dataset import DTYPES, TOKENIZER_FOLDER, Boundary, DatasetInfo
from ..errors import DatasetError
from ..tokenizers import CharTokenizer, gpt2_tokenizer
from .describe import describe_files


def describe_nanogpt(folder: str | Path, gpt2_bpe: str | Path | None = None) -> DatasetInfo:
    """Make a nanoGPT folder a dataset: add `dataset.json` and the tokenizer's files, leave the rest as it is.

    With meta.pkl the tokenizer is its table of characters, without one it is GPT-2's (gpt2_bpe: where its files are).
    Reads everything once to count, to hash and to check that every id is in the vocabulary.
    Errors: DatasetError names the file and what is wrong with it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.")
    if (folder / "meta.pkl").is_file():
        tokenizer, dtype = _read_meta(folder / "meta.pkl")
    else:
        tokenizer, dtype = gpt2_tokenizer(gpt2_bpe), "uint16"
    boundary = None if tokenizer.eot_id is None else Boundary(tokenizer.eot_id, "end")
    paths = {split: folder / f"{split}.bin" for split in ("train", "val")}
    tokens = {split: _tokens(path, dtype) for split, path in paths.items()}
    splits = {split: describe_files([paths[split]], [tokens[split]], dtype, tokenizer, boundary) for split in paths}
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
        boundary=boundary,
    )
    info.save()
    return info


def _tokens(path: Path, dtype: str) -> int:
    if not path.is_file():
        raise DatasetError(f"{path}: is missing; a nanoGPT folder has train.bin and val.bin. Run its prepare.py.")
    tokens, rest = divmod(path.stat().st_size, DTYPES[dtype].itemsize)
    if rest or not tokens:
        raise DatasetError(f"{path}: has {path.stat().st_size} bytes, expected {dtype} ids. Run nanoGPT's prepare.py.")
    return tokens


def nanogpt_tokenizer(path: str | Path) -> CharTokenizer:
    """The tokenizer of a nanoGPT meta.pkl, read without running code. DatasetError if the file is something else."""
    return _read_meta(Path(path))[0]


PLAIN = re.compile(
    r"PROTO|FRAME|STOP|MARK|(EMPTY_)?(DICT|LIST)|SETITEMS?|APPENDS?|(SHORT_)?BINUNICODE8?|UNICODE|(SHORT_)?BINSTRING|STRING"
    r"|BININT[12]?|INT|LONG[14]?|(BIN)?FLOAT|NONE|NEWTRUE|NEWFALSE|MEMOIZE|(LONG_)?(BIN)?(PUT|GET)"
)
"""Instructions of pickles that make dicts, lists, strings and numbers, and no others."""


def _check_plain(content: bytes) -> None:
    """UnpicklingError if a pickle could run code, or take much more memory than it has bytes."""
    for instruction, argument, _ in pickletools.genops(content):
        if instruction.name in ("GLOBAL", "INST"):
            raise pickle.UnpicklingError(f"it refers to {str(argument).replace(' ', '.')}, which could run code")
        if not PLAIN.fullmatch(instruction.name):
            raise pickle.UnpicklingError(f"it has the instruction {instruction.name}, which no table needs")
        if instruction.name.endswith("PUT") and int(argument or 0) > len(
            content
        ):  # CPython makes room for all before it
            raise pickle.UnpicklingError(f"it numbers one of its objects {argument}, with {len(content)} bytes in all")


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, numbers and strings; anything that would run code is an error."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module_name}.{global_name}, which could run code")


def _read_meta(path: Path) -> tuple[CharTokenizer, str]:
    """The table of characters, and the dtype of the ids (uint16 where the file does not say)."""
    try:
        content = path.read_bytes()
        _check_plain(content)
        meta = _PlainUnpickler(io.BytesIO(content)).load()
        chars = [meta["itos"][i] for i in range(meta["vocab_size"])]
        dtype = meta.get("dtype", "uint16")
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path}: is no nanoGPT table of characters ({error!r}). Run nanoGPT's data/*_char/prepare.py again."
        ) from error
    if not all(isinstance(char, str) and len(char) == 1 for char in chars):
        raise DatasetError(f"{path}: holds entries that are not single characters. Run nanoGPT's prepare.py again.")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise DatasetError(f"{path}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    return CharTokenizer("".join(chars)), dtype

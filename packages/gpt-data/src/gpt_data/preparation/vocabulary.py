"""The tokenizer of a dataset under construction."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..durable import sync_tree
from ..errors import DatasetError
from ..tokenizers import (
    TOKENIZER_FILE,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    SpecialTokenizer,
    Tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
)
from ..tokenizers.bpe import RANKS_FILE, SMALLEST_VOCABULARY
from ..tokenizers.fingerprint import fingerprint
from ..tokenizers.huggingface import HF_FILE
from ..tokenizers.special import BASE_FOLDER
from .download import file_sha256
from .plan import Plan
from .progress import Progress
from .reading import read_texts
from .sources import text_source

TOKENIZERS = ("bpe", "char", "byte", "gpt2")
TRAINED = ("bpe", "char")
"""Those that are made from the texts of the dataset."""
DEFAULT_VOCAB_SIZE = 2048
"""Of a trained tokenizer: small enough for small models, and ids fit in 16 bits."""
TRAIN_BYTES = 256 << 20
"""A BPE is trained on no more than this, taken evenly from the whole training split."""
OWN_FILES = re.compile(
    rf"({BASE_FOLDER}/)*({BASE_FOLDER}|{re.escape(TOKENIZER_FILE)}|{re.escape(RANKS_FILE)}|{re.escape(HF_FILE)})"
)
"""What `Tokenizer.save` writes."""


def check_choice(tokenizer: str, vocab_size: int | None) -> int | None:
    """The size of a vocabulary to be trained, None for tokenizers whose size is not a choice.

    tokenizer: one of TOKENIZERS, or a folder that holds a saved one.
    """
    if tokenizer not in TOKENIZERS and not Path(tokenizer).is_dir():
        raise ValueError(
            f"tokenizer is {tokenizer!r}, expected one of {', '.join(TOKENIZERS)}, or the folder of a saved tokenizer."
        )
    if tokenizer == "bpe":
        size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
        if size < SMALLEST_VOCABULARY:
            raise ValueError(
                f"vocab_size is {size}, expected at least {SMALLEST_VOCABULARY}: all bytes and end-of-text."
            )
        return size
    if vocab_size is not None:
        raise ValueError(f"vocab_size is {vocab_size}, but only a bpe tokenizer is trained to a size, not {tokenizer}.")
    return None


def tokenizer_name(tokenizer: str) -> str:
    """How it is recorded: `tok` for `./tok/`."""
    return tokenizer if tokenizer in TOKENIZERS else str(Path(tokenizer))


def is_same_tokenizer(folder: str, used: Tokenizer) -> bool:
    """Whether the tokenizer in `folder` is the one of a dataset, which may have special tokens on top."""
    candidates = [used, used.base] if isinstance(used, SpecialTokenizer) else [used]
    return fingerprint(load_tokenizer(folder)) in map(fingerprint, candidates)


def tokenizer_identity(tokenizer: str) -> list[tuple[str, str]]:
    """What tells two folders of tokenizers apart: their files' names and sha256; nothing for those with a name."""
    if tokenizer in TOKENIZERS:
        return []
    folder = Path(tokenizer)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]


def make_tokenizer(
    kind: str, vocab_size: int | None, gpt2_bpe: str | Path | None, plan: Plan, folder: Path, progress: Progress
) -> Tokenizer:
    """Make the tokenizer and save it to `folder`, or load what an earlier run saved there."""
    if folder.exists():
        return load_tokenizer(folder)
    makers: dict[str, Callable[[], Tokenizer]] = {
        "bpe": lambda: _train_on_plan(vocab_size or DEFAULT_VOCAB_SIZE, plan, progress),
        "char": lambda: CharTokenizer.train(plan.texts(), eot=plan.separate),
    }
    made = makers[kind]() if kind in TRAINED else open_tokenizer(kind, gpt2_bpe)
    if plan.separate and made.eot_id is None:
        raise DatasetError(
            f"{kind}: this tokenizer has no end-of-text token, which texts of several documents need. Use another "
            "one, or give a single text."
        )
    save_tokenizer(made, folder)
    return made


def open_tokenizer(kind: str, gpt2_bpe: str | Path | None) -> Tokenizer:
    """A tokenizer that needs no text to learn from. ValueError for those that do."""
    if kind in TRAINED:
        raise ValueError(f"tokenizer is {kind!r}, which is made from texts; expected gpt2, byte, or a folder of one.")
    if kind == "gpt2":
        return gpt2_tokenizer(gpt2_bpe)
    return ByteTokenizer() if kind == "byte" else load_tokenizer(kind)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Save it to `folder`, which appears whole, in place of a tokenizer that is there.

    DatasetError if `folder` holds anything else: that is never deleted.
    """
    check_tokenizer_replaceable(folder)
    aside = folder.with_name(f".{folder.name}.tokenizer.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    tokenizer.save(aside)
    sync_tree(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def check_tokenizer_replaceable(folder: Path) -> None:
    """DatasetError unless `folder` is missing, empty, or a tokenizer that was saved there."""
    if folder.is_dir():
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        foreign = [name for name in names if not OWN_FILES.fullmatch(name)]
        if not names or (TOKENIZER_FILE in names and not foreign):
            return
        found = f"holds {(foreign or names)[0]!r}, so it is more than a saved tokenizer"
    elif folder.exists():
        found = "is a file"
    else:
        return
    raise DatasetError(f"{folder}: {found}, and it is not replaced. Choose another folder with --out.")


def train_on_files(
    paths: Sequence[str | Path], vocab_size: int, text_field: str | None = None, quiet: bool = False
) -> Tokenizer:
    """A BPE of files and folders: all their text, or TRAIN_BYTES of it, taken evenly as far as sizes tell.

    Errors: DatasetError names a file that cannot be read; ValueError if `vocab_size` is too small.
    """
    check_choice("bpe", vocab_size)
    source = text_source([Path(path) for path in paths], text_field=text_field)
    size = sum(file.size() for file in source.documents) + sum(table.stamp()[0] for table in source.tables)
    every = max(1, -(-size // TRAIN_BYTES))
    texts = itertools.islice(read_texts(paths, text_field), 0, None, every)
    return _train_bpe(_first(TRAIN_BYTES, texts), size // every, vocab_size, Progress("train-tokenizer", quiet))


def _first(limit: int, texts: Iterable[str]) -> Iterator[str]:
    """Texts of `limit` bytes in all, or one text more: files that are packed hold more than their size."""
    for text in texts:
        yield text
        limit -= len(text.encode())
        if limit <= 0:
            return


def _train_bpe(texts: Iterable[str], size: int, vocab_size: int, progress: Progress) -> Tokenizer:
    """size: of the texts, in bytes."""
    progress.phase("training the tokenizer on", size)

    def counted() -> Iterator[str]:
        for text in texts:
            progress.advance(len(text))
            yield text

    made = BPETokenizer.train(counted(), vocab_size)
    if made.vocab_size < vocab_size:
        progress.say(f"the text has merges for {made.vocab_size} ids only, not for {vocab_size}")
    return made


def _train_on_plan(vocab_size: int, plan: Plan, progress: Progress) -> Tokenizer:
    size = plan.bytes("train")
    every = max(1, -(-size // TRAIN_BYTES))
    return _train_bpe(plan.texts("train", every), size // every, vocab_size, progress)

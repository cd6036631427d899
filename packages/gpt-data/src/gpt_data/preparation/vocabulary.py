"""The tokenizer of a dataset under construction."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..durable import sync_tree
from ..errors import DatasetError
from ..tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer, gpt2_tokenizer, load_tokenizer
from ..tokenizers.bpe import SMALLEST_VOCABULARY
from .download import file_sha256
from .plan import Plan
from .progress import Progress

TOKENIZERS = ("bpe", "char", "byte", "gpt2")
TRAINED = ("bpe", "char")
"""Those that are made from the texts of the dataset."""
DEFAULT_VOCAB_SIZE = 2048
"""Of a trained tokenizer: small enough for small models, and ids fit in 16 bits."""
TRAIN_BYTES = 256 << 20
"""A BPE is trained on no more than this, taken evenly from the whole training split."""


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
        "bpe": lambda: _train_bpe(vocab_size or DEFAULT_VOCAB_SIZE, plan, progress),
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
    """Save it to `folder`, which appears whole, in place of what is there."""
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    tokenizer.save(aside)
    sync_tree(aside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(aside, folder)


def _train_bpe(vocab_size: int, plan: Plan, progress: Progress) -> Tokenizer:
    every = max(1, -(-plan.bytes("train") // TRAIN_BYTES))
    progress.phase("training the tokenizer on", plan.bytes("train") // every)

    def texts() -> Iterator[str]:
        for text in plan.texts("train", every):
            progress.advance(len(text))
            yield text

    made = BPETokenizer.train(texts(), vocab_size)
    if made.vocab_size < vocab_size:
        progress.say(f"the text has merges for {made.vocab_size} ids only, not for {vocab_size}")
    return made

"""The loaders of one dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..tokenizers import Tokenizer
from .base import Loader


class Corpus(Protocol):
    """What a training run asks of its data beside batches: a `DatasetInfo`, or what stands for one without a folder."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path | None: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def digest(self) -> str:
        """Differs if any id differs."""
        ...

    def load_tokenizer(self) -> Tokenizer: ...


@dataclass(frozen=True)
class Splits:
    """What a data factory returns."""

    train: Loader
    val: Loader
    test: Loader | None
    dataset: Corpus
    notes: tuple[str, ...] = ()
    """What whoever trains on it should be told, such as what does not fit."""

"""What stands for the dataset of a mixture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..dataset import DatasetInfo
from ..tokenizers import Tokenizer
from ..tokenizers.fingerprint import fingerprint
from .splits import Corpus


@dataclass(frozen=True)
class MixtureCorpus:
    """Several corpora of one vocabulary."""

    names: tuple[str, ...]
    corpora: tuple[Corpus, ...]
    path: None = None

    @property
    def name(self) -> str:
        return " + ".join(self.names)

    @property
    def vocab_size(self) -> int:
        return self.corpora[0].vocab_size

    @property
    def digest(self) -> str:
        """sha256 of the corpora's digests."""
        return hashlib.sha256(json.dumps([corpus.digest for corpus in self.corpora]).encode()).hexdigest()

    def load_tokenizer(self) -> Tokenizer:
        return self.corpora[0].load_tokenizer()


def require_same_tokenizer(names: Sequence[str], corpora: Sequence[Corpus]) -> None:
    """ValueError naming the first source whose ids mean something else than those of the first source."""
    first = fingerprint(corpora[0].load_tokenizer()) if len(corpora) > 1 else None
    for name, corpus in zip(names[1:], corpora[1:], strict=True):
        if corpus.vocab_size != corpora[0].vocab_size or fingerprint(corpus.load_tokenizer()) != first:
            raise ValueError(
                f"sources {names[0]!r} ({_describe(corpora[0])}) and {name!r} ({_describe(corpus)}) have different "
                "tokenizers, so one id would mean two things. Prepare both with the same tokenizer."
            )


def _describe(corpus: Corpus) -> str:
    tokenizer = corpus.tokenizer if isinstance(corpus, DatasetInfo) else corpus.load_tokenizer().name
    return f"tokenizer {tokenizer}, {corpus.vocab_size} ids"

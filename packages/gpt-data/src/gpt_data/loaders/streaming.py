"""Documents of a Hugging Face dataset, read and tokenized while training: nothing is prepared or downloaded whole."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DatasetError
from ..tokenizers import ByteTokenizer, Tokenizer, gpt2_tokenizer, load_tokenizer
from ..tokenizers.fingerprint import fingerprint
from .base import Loader, Rows
from .prefetch import prefetched
from .splits import Splits

if TYPE_CHECKING:
    from datasets import IterableDataset

VAL_NAMES = ("validation", "valid", "dev", "val")


def hf_streaming(
    dataset: str | Path,
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    data_root: str | Path | None = None,
    subset: str | None = None,
    split: str = "train",
    val_split: str | None = None,
    val_documents: int = 0,
    data_dir: str | None = None,
    data_files: str | Sequence[str] | Mapping[str, Any] | None = None,
    revision: str | None = None,
    text_field: str = "text",
    tokenizer: str = "gpt2",
    shuffle_window: int = 1000,
    prefetch: int = 2,
) -> Splits:
    """Stream a dataset of the Hugging Face hub, or a local folder of parquet, jsonl or text files, or a saved dataset.

    dataset, subset, data_dir, data_files, revision: as for `datasets.load_dataset`; a folder that
    `Dataset.save_to_disk` wrote is opened as such.
    val_split: default: the first of validation, valid, dev, val that there is.
    val_documents: hold out so many documents at the beginning of `split` instead, where there is no such split, or
    val_split is "". Which ones depends on how the files are dealt out to the ranks: of each rank's files the first.
    text_field: the column of text; tokenizer: gpt2, byte, or the folder of a saved tokenizer.
    shuffle_window: documents that are shuffled among themselves, and held in memory; 0 or 1: the order of the files.
    data_root: not used, there is nothing on disk. The other arguments are those of `random_windows`.
    Errors: DatasetError if the dataset cannot be opened or has no such split or column.
    """
    dataset = str(dataset)
    if shuffle_window < 0 or val_documents < 0:
        raise ValueError(f"shuffle_window and val_documents must be at least 0, got {shuffle_window}, {val_documents}.")
    opened = _open(dataset, subset, data_dir, data_files, revision)
    train, val = _choose_splits(opened, dataset, split, val_split, val_documents)
    vocabulary = _open_tokenizer(tokenizer)
    asked = {
        "dataset": dataset,
        "subset": subset,
        "data_dir": data_dir,
        "data_files": data_files,
        "revision": revision,
        "text_field": text_field,
        "tokenizer": fingerprint(vocabulary),
    }

    def stream(named: tuple[str, IterableDataset], window: int) -> HFStream:
        shape = (context_length, device_batch_size, rank, world_size, seed)
        return HFStream(named[1], {**asked, "split": named[0]}, vocabulary, *shape, shuffle_window=window)

    return Splits(
        train=prefetched(stream(train, shuffle_window), prefetch),
        val=stream(val, 0),
        test=stream(("test", opened["test"]), 0) if "test" in opened and split != "test" else None,
        dataset=StreamedCorpus(dataset, asked, vocabulary),
    )


@dataclass(frozen=True)
class StreamedCorpus:
    """What stands for a dataset that is not on disk."""

    name: str
    asked: Mapping[str, Any]
    tokenizer: Tokenizer
    path: None = None

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def digest(self) -> str:
        """Of what was asked for; what the hub answers may change unless a revision is given."""
        return _digest(self.asked)

    def load_tokenizer(self) -> Tokenizer:
        return self.tokenizer


class _Document(NamedTuple):
    """A tokenized document in the buffer, and how to find it again."""

    length: int
    place: dict[str, Any]
    """State of the stream before its window, which epoch, window and document of the window that is."""


class HFStream(Loader):
    """B·T+1 tokens per batch from the stream of this rank's documents, each followed by its end-of-text id.

    The next batch begins with the last target of the one before, so every token of every document is a target once per
    epoch (but the very first). Documents are dealt out to the ranks by `datasets.distributed.split_dataset_by_node`.
    The state holds the position of the stream at the beginning of a window of documents, the document and the token:
    it is exact, it differs between ranks, and it belongs to a number of ranks.
    """

    def __init__(
        self,
        documents: IterableDataset,
        asked: Mapping[str, Any],
        tokenizer: Tokenizer,
        context_length: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle_window: int = 0,
    ) -> None:
        super().__init__(context_length, device_batch_size, rank, world_size, seed)
        from datasets.distributed import split_dataset_by_node

        if tokenizer.eot_id is None:
            raise ValueError(f"the tokenizer {tokenizer.name} has no end-of-text id to put between documents.")
        self._documents = split_dataset_by_node(documents, rank=rank, world_size=world_size)
        self._asked, self._tokenizer, self._eot = dict(asked), tokenizer, np.uint32(tokenizer.eot_id)
        self._window = max(shuffle_window, 1)
        self._beginning = copy.deepcopy(self._documents.state_dict())
        self._restart(place=None)

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.vocab_size

    @property
    def where(self) -> str:
        return f"{self._asked['dataset']}, split {self._asked['split']!r}"

    @property
    def batches_per_epoch(self) -> int:
        raise ValueError(
            f"{self.where}: how long a stream is shows only at its end. Say how much to take of it (eval.eval_iters)."
        )

    def next_rows(self) -> Rows:
        B, T = self.device_batch_size, self.context_length
        while self._buffered < B * T + 1:
            document = next(self._encoded)
            self._begun.append(document[0])
            self._ids.append(document[1])
            self._buffered += document[0].length
        run = np.concatenate(self._ids)
        self._ids = [run[B * T :]]
        self._buffered -= B * T
        self._offset += B * T
        while self._offset >= self._begun[0].length:
            self._offset -= self._begun.popleft().length
        run = run[: B * T + 1]
        return Rows(np.concatenate([run[:-1].reshape(B, T), run[T::T, None]], axis=1))

    def state_dict(self) -> dict[str, Any]:
        at = None if not self._begun else {**self._begun[0].place, "token": self._offset}
        return {**self.identity(), "at": at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_identity(state)
        place = state.get("at", {})
        fields = ("epoch", "window", "document", "token")
        if place is not None and not all(isinstance(place.get(field), int) for field in fields):
            raise ValueError(
                f"this loader state is at {place!r}, expected a stream and the numbers {', '.join(fields)}."
            )
        self._restart(place)

    def identity(self) -> dict[str, Any]:
        layout = {"world_size": self.world_size, "rank": self.rank, "shuffle_window": self._window}
        return {"stream": _digest(self._asked), **super().identity(), **layout}

    def _restart(self, place: dict[str, Any] | None) -> None:
        """Empty the buffer and go to a document, None for the first."""
        self._ids: list[np.ndarray] = []
        self._begun: deque[_Document] = deque()
        """Documents of which a token is in the buffer, oldest first."""
        self._buffered, self._offset = 0, 0
        self._encoded = self._encode(place)
        if place is not None:
            document, ids = next(self._encoded)
            if document.place != {key: place[key] for key in document.place} or place["token"] >= len(ids):
                raise ValueError(
                    f"{self.where}: the document that this loader state is in is not there: the data has changed "
                    "since. Give a revision, or start the data from the beginning."
                )
            self._offset = place["token"]
            self._begun.append(document)
            self._ids.append(ids[self._offset :])
            self._buffered = len(ids) - self._offset

    def _encode(self, place: dict[str, Any] | None) -> Iterator[tuple[_Document, np.ndarray]]:
        """Documents with their ids from `place` on, for ever."""
        first = 0 if place is None else place["document"]
        for window, texts in self._windows(place):
            for number, text in enumerate(texts[first:], first):
                ids = np.append(self._tokenizer.encode_array(text), self._eot)
                yield _Document(len(ids), {**window, "document": number}), ids
            first = 0

    def _windows(self, place: dict[str, Any] | None) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Windows of documents, shuffled, each with what finds it again; from that of `place` on, for ever."""
        stream, epoch, number = (None, 0, 0) if place is None else (place["stream"], place["epoch"], place["window"])
        while True:
            before = self._beginning if stream is None else stream  # `state_dict` says it only from the first row on
            self._documents.load_state_dict(before)
            rows, some = iter(self._documents), stream is not None
            while taken := list(itertools.islice(rows, self._window)):
                if texts := [text for row in taken if (text := self._text(row))]:
                    some = True
                    window = {"stream": before, "epoch": epoch, "window": number}
                    yield window, self._shuffled(texts, epoch, number)
                before, number = copy.deepcopy(self._documents.state_dict()), number + 1
            if not some:
                raise DatasetError(f"{self.where}: holds no text for rank {self.rank} of {self.world_size}.")
            stream, epoch, number = None, epoch + 1, 0

    def _text(self, row: Mapping[str, Any]) -> str | None:
        field = self._asked["text_field"]
        if field not in row:
            raise DatasetError(f"{self.where}: has no column {field!r}, only {', '.join(row)}. Give text_field.")
        text = row[field]
        if text is not None and not isinstance(text, str):
            raise DatasetError(
                f"{self.where}: column {field!r} holds {type(text).__name__}, not text. Give text_field."
            )
        return text

    def _shuffled(self, texts: list[str], epoch: int, window: int) -> list[str]:
        if self._window == 1:
            return texts
        key, counter = [self.seed % 2**64, self.rank], [0, window, epoch, 1]
        words = np.random.Philox(key=key, counter=counter).random_raw(len(texts))
        return [texts[i] for i in np.argsort(words, kind="stable")]


def _open(
    dataset: str,
    subset: str | None,
    data_dir: str | None,
    data_files: str | Sequence[str] | Mapping[str, Any] | None,
    revision: str | None,
) -> Mapping[str, IterableDataset]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("streaming a dataset needs the package datasets: pip install 'gpt-data[hub]'") from error
    try:
        if any((Path(dataset) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            saved: Any = datasets.load_from_disk(dataset)
            parts = saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}
            return {str(name): part.to_iterable_dataset() for name, part in parts.items()}
        options: Any = {"data_dir": data_dir, "data_files": data_files, "revision": revision}
        opened = datasets.load_dataset(dataset, subset, streaming=True, **options)
        return {str(name): part for name, part in opened.items()}
    except (OSError, ValueError, RuntimeError) as error:  # of these kinds are datasets' own errors
        raise DatasetError(
            f"cannot open the dataset {dataset!r} ({type(error).__name__}: {error}). Check the name and the network, "
            "or give a local folder of parquet or jsonl files."
        ) from error


def _choose_splits(
    opened: Mapping[str, IterableDataset], dataset: str, split: str, val_split: str | None, val_documents: int
) -> tuple[tuple[str, IterableDataset], tuple[str, IterableDataset]]:
    """Named documents for training and for validation."""
    wanted = [split, *([val_split] if val_split else [])]
    if missing := [name for name in wanted if name not in opened]:
        raise DatasetError(f"{dataset}: has no split {missing[0]!r}, only {', '.join(opened)}.")
    found = next((name for name in VAL_NAMES if name in opened), None) if val_split is None else val_split or None
    if found and val_documents:
        raise ValueError(
            f"val_documents is {val_documents}, but {dataset} has a split {found!r} for validation. Give one of the "
            'two: val_documents: 0, or val_split: "".'
        )
    if found:
        return (split, opened[split]), (found, opened[found])
    if not val_documents:
        raise ValueError(
            f"{dataset}: has no split for validation ({', '.join(opened)}). Hold some documents out: "
            "val_documents: 1000."
        )
    held_out, rest = opened[split].take(val_documents), opened[split].skip(val_documents)
    return (f"{split}[{val_documents}:]", rest), (f"{split}[:{val_documents}]", held_out)


def _open_tokenizer(name: str) -> Tokenizer:
    if name == "gpt2":
        return gpt2_tokenizer()
    return ByteTokenizer() if name == "byte" else load_tokenizer(name)


def _digest(asked: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

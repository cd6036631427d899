"""A dataset on disk: a folder of token shards described by `dataset.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .durable import write_json
from .errors import DatasetError
from .shard_header import read_header
from .shards import TokenStream
from .tokenizers import Tokenizer, load_tokenizer

FORMAT = 1
DESCRIPTION_FILE = "dataset.json"
TOKENIZER_FOLDER = "tokenizer"
DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
VERIFY_TOKENS = 1 << 22  # per read of verify()
AGAIN = "Prepare the dataset again (`uv run apps/prepare NAME --force`)."


@dataclass(frozen=True)
class ShardInfo:
    """One `.bin` file."""

    file: str
    """Name inside the dataset folder."""
    tokens: int
    sha256: str
    """Of the whole file."""
    offset: int = 0
    """Bytes before the first id: 1024 in the speedrun's files, which begin with a header."""
    mask: str | None = None
    """Name of the file that holds one byte per id: 1 where the id counts as a target, 0 where it does not."""
    mask_sha256: str | None = None


@dataclass(frozen=True)
class Boundary:
    """How a stream shows where its documents are."""

    id: int
    """The token between them."""
    at: Literal["start", "end"]
    """`start`: every document begins with it (the speedrun, chat); `end`: every document ends with it (nanoGPT)."""


@dataclass(frozen=True)
class SplitInfo:
    """The shards of one split and what went into them."""

    tokens: int
    """Ids, the end-of-text ids between documents included."""
    bytes: int
    """UTF-8 bytes of the encoded text; end-of-text ids add none."""
    documents: int
    shards: tuple[ShardInfo, ...]


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset folder holds."""

    path: Path
    name: str
    dtype: str
    """`uint16` or `uint32`, little-endian on disk."""
    vocab_size: int
    tokenizer: str
    """Name of the tokenizer, whose files are in `tokenizer_dir`."""
    splits: dict[str, SplitInfo]
    source: dict[str, Any]
    """Where the text came from: description, license, number of documents, sha256."""
    options: dict[str, Any]
    """What the user could have chosen otherwise: tokenizer, vocab_size."""
    boundary: Boundary | None = None
    """None: one continuous text."""

    @property
    def tokenizer_dir(self) -> Path:
        return self.path / TOKENIZER_FOLDER

    @property
    def digest(self) -> str:
        """sha256 of everything that decides which batches a loader yields; independent of machine and path."""
        splits = {name: asdict(split) for name, split in self.splits.items()}
        boundary = None if self.boundary is None else asdict(self.boundary)
        content = json.dumps([FORMAT, self.dtype, self.vocab_size, boundary, splits], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def load_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_dir)

    def tokens(self, split: str) -> int:
        """How many there are."""
        return self.splits[split].tokens

    def bytes_per_token(self, split: str) -> float:
        """Turns nats per token into bits per byte: `nats / ln(2) / bytes_per_token`."""
        return self.splits[split].bytes / self.splits[split].tokens

    def stream(self, split: str) -> TokenStream:
        """The tokens of one split, in order."""
        shards = self._shards(split)
        paths = [self.path / shard.file for shard in shards]
        tokens, offsets = [shard.tokens for shard in shards], [shard.offset for shard in shards]
        return TokenStream(paths, tokens, DTYPES[self.dtype], offsets)

    def mask_stream(self, split: str) -> TokenStream | None:
        """uint8, one for each token of `stream(split)`: 1 where it counts as a target. None: all of them count."""
        shards = self._shards(split)
        paths = [self.path / shard.mask for shard in shards if shard.mask is not None]
        if not paths:
            return None
        return TokenStream(paths, [shard.tokens for shard in shards], np.dtype(np.uint8))

    def _shards(self, split: str) -> tuple[ShardInfo, ...]:
        if split not in self.splits:
            raise DatasetError(f"{self.path}: has no split {split!r}, only {', '.join(self.splits)}.")
        return self.splits[split].shards

    def save(self) -> None:
        """Write `dataset.json`: the last file of a folder under construction."""
        fields = {key: value for key, value in asdict(self).items() if key != "path"}
        write_json(self.path / DESCRIPTION_FILE, {"format": FORMAT, **fields})

    def verify(self) -> None:
        """Read every shard, check its sha256 and its ids. DatasetError names the first bad file."""
        for split in self.splits.values():
            for shard in split.shards:
                self._verify_shard(shard)

    def _verify_shard(self, shard: ShardInfo) -> None:
        path = self.path / shard.file
        stream = TokenStream([path], [shard.tokens], DTYPES[self.dtype], [shard.offset])
        for position in range(0, shard.tokens, VERIFY_TOKENS):
            check_ids(stream.read(position, min(VERIFY_TOKENS, shard.tokens - position)), self.vocab_size, str(path))
        _check_sha256(path, shard.sha256)
        if shard.mask is not None and shard.mask_sha256 is not None:
            _check_sha256(self.path / shard.mask, shard.mask_sha256)


def _check_sha256(path: Path, expected: str) -> None:
    with open(path, "rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != expected:
        raise DatasetError(
            f"{path}: sha256 is {got}, {DESCRIPTION_FILE} says {expected}. The file was changed. {AGAIN}"
        )


def check_ids(ids: np.ndarray, vocab_size: int, where: str) -> None:
    """DatasetError if an id is outside the vocabulary; one pass over `ids`, some microseconds per batch."""
    if ids.size and (largest := int(ids.max())) >= vocab_size:
        raise DatasetError(
            f"{where}: holds token id {largest}, the vocabulary has {vocab_size} (0 to {vocab_size - 1}). It is "
            f"corrupt or was made with another tokenizer or dtype. {AGAIN}"
        )


def read_dataset(folder: Path) -> DatasetInfo:
    """Read `dataset.json`, and check that every shard is there and has the size that it says.

    Errors: DatasetError names the file, what was found, what was expected and what to do.
    """
    path = folder / DESCRIPTION_FILE
    if not path.is_file():
        raise DatasetError(f"{folder}: has no {DESCRIPTION_FILE}, so it is no dataset. {AGAIN}")
    try:
        info = _parse(folder, json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: cannot be understood ({error!r}). {AGAIN}") from error
    for split in info.splits.values():
        for shard in split.shards:
            _check_size(info, shard)
    return info


def _parse(folder: Path, content: dict[str, Any]) -> DatasetInfo:
    path = folder / DESCRIPTION_FILE
    if content["format"] != FORMAT:
        raise DatasetError(
            f"{path}: format is {content['format']!r}, this version of gpt-data reads {FORMAT}. Update gpt-data, or "
            f"start over. {AGAIN}"
        )
    if content["dtype"] not in DTYPES:
        raise DatasetError(f"{path}: dtype is {content['dtype']!r}, expected one of {', '.join(DTYPES)}. {AGAIN}")
    if not isinstance(size := content["vocab_size"], int) or size < 1:
        raise DatasetError(f"{path}: vocab_size is {size!r}, expected a number of ids. {AGAIN}")
    splits = {name: _parse_split(path, name, split) for name, split in content["splits"].items()}
    return DatasetInfo(
        path=folder,
        name=content["name"],
        dtype=content["dtype"],
        vocab_size=content["vocab_size"],
        tokenizer=content["tokenizer"],
        splits=splits,
        source=content["source"],
        options=content["options"],
        boundary=_parse_boundary(path, content.get("boundary"), size),
    )


def _parse_boundary(path: Path, content: dict[str, Any] | None, vocab_size: int) -> Boundary | None:
    if content is None:
        return None
    boundary = Boundary(**content)
    if boundary.at not in ("start", "end") or not isinstance(boundary.id, int) or not 0 <= boundary.id < vocab_size:
        raise DatasetError(
            f"{path}: boundary is {content}, expected an id below {vocab_size} at 'start' or 'end'. {AGAIN}"
        )
    return boundary


def _parse_split(path: Path, name: str, content: dict[str, Any]) -> SplitInfo:
    shards = tuple(ShardInfo(**shard) for shard in content["shards"])
    split = SplitInfo(content["tokens"], content["bytes"], content["documents"], shards)
    if (total := sum(shard.tokens for shard in shards)) != split.tokens:
        raise DatasetError(f"{path}: the shards of {name!r} have {total} tokens, expected {split.tokens}. {AGAIN}")
    for file in (file for shard in shards for file in (shard.file, shard.mask) if file is not None):
        if Path(file).name != file:
            raise DatasetError(f"{path}: shard {file!r} is outside the dataset folder. {AGAIN}")
    if len({shard.mask is None for shard in shards}) > 1:
        raise DatasetError(f"{path}: some shards of {name!r} have a mask and some have none. {AGAIN}")
    return split


def _check_size(info: DatasetInfo, shard: ShardInfo) -> None:
    expected = shard.offset + shard.tokens * DTYPES[info.dtype].itemsize
    _check_file(info.path / shard.file, expected, f"{shard.tokens} ids of {info.dtype}")
    if shard.offset:  # the file may have been replaced since it was described
        read_header(info.path / shard.file)
    if shard.mask is not None:
        _check_file(info.path / shard.mask, shard.tokens, f"a byte for each of {shard.tokens} ids")


def _check_file(path: Path, expected: int, meaning: str) -> None:
    if not path.is_file():
        raise DatasetError(f"{path}: is missing, expected {expected} bytes. {AGAIN}")
    if (got := path.stat().st_size) != expected:
        found = "is empty" if got == 0 else f"has {got} bytes"
        raise DatasetError(
            f"{path}: {found}, expected {expected} bytes ({meaning}). It is truncated or has another dtype. {AGAIN}"
        )

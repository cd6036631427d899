"""A dataset on disk: a folder of token shards described by `dataset.json`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .durable import write_json
from .errors import DatasetError
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

    @property
    def tokenizer_dir(self) -> Path:
        return self.path / TOKENIZER_FOLDER

    @property
    def digest(self) -> str:
        """sha256 of everything that decides which ids a loader yields; independent of machine and path."""
        splits = {name: asdict(split) for name, split in self.splits.items()}
        content = json.dumps([FORMAT, self.dtype, self.vocab_size, splits], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def load_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.tokenizer_dir)

    def bytes_per_token(self, split: str) -> float:
        """Turns nats per token into bits per byte: `nats / ln(2) / bytes_per_token`."""
        return self.splits[split].bytes / self.splits[split].tokens

    def stream(self, split: str) -> TokenStream:
        """The tokens of one split, in order."""
        if split not in self.splits:
            raise DatasetError(f"{self.path}: has no split {split!r}, only {', '.join(self.splits)}.")
        shards = self.splits[split].shards
        paths = [self.path / shard.file for shard in shards]
        return TokenStream(paths, [shard.tokens for shard in shards], DTYPES[self.dtype])

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
        path, digest = self.path / shard.file, hashlib.sha256()
        stream = TokenStream([path], [shard.tokens], DTYPES[self.dtype])
        for position in range(0, shard.tokens, VERIFY_TOKENS):
            ids = np.empty(min(VERIFY_TOKENS, shard.tokens - position), stream.dtype)
            stream.read_into(ids, position)
            check_ids(ids, self.vocab_size, str(path))
            digest.update(ids.data)
        if digest.hexdigest() != shard.sha256:
            raise DatasetError(
                f"{path}: sha256 is {digest.hexdigest()}, {DESCRIPTION_FILE} says {shard.sha256}. The file was "
                f"changed. {AGAIN}"
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
    )


def _parse_split(path: Path, name: str, content: dict[str, Any]) -> SplitInfo:
    shards = tuple(ShardInfo(**shard) for shard in content["shards"])
    split = SplitInfo(content["tokens"], content["bytes"], content["documents"], shards)
    if (total := sum(shard.tokens for shard in shards)) != split.tokens:
        raise DatasetError(f"{path}: the shards of {name!r} have {total} tokens, expected {split.tokens}. {AGAIN}")
    for shard in shards:
        if Path(shard.file).name != shard.file:
            raise DatasetError(f"{path}: shard {shard.file!r} is outside the dataset folder. {AGAIN}")
    return split


def _check_size(info: DatasetInfo, shard: ShardInfo) -> None:
    path, expected = info.path / shard.file, shard.tokens * DTYPES[info.dtype].itemsize
    if not path.is_file():
        raise DatasetError(f"{path}: is missing, expected {expected} bytes. {AGAIN}")
    if (got := path.stat().st_size) != expected:
        found = "is empty" if got == 0 else f"has {got} bytes"
        raise DatasetError(
            f"{path}: {found}, expected {expected} bytes ({shard.tokens} ids of {info.dtype}). It is truncated or has "
            f"another dtype. {AGAIN}"
        )

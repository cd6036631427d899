"""Describing a folder of the speedrun's token shards: `fineweb_train_000001.bin`, ..., `fineweb_val_000000.bin`.

A file is a header (../shard_header.py) and uint16 ids in GPT-2's vocabulary; every document begins with <|endoftext|>.
Format: llm.c, modded-nanogpt (data/cached_fineweb10B.py).
"""

from __future__ import annotations

from pathlib import Path

from ..dataset import TOKENIZER_FOLDER, Boundary, DatasetInfo
from ..errors import DatasetError
from ..shard_header import HEADER_BYTES, read_header
from ..tokenizers import gpt2_tokenizer
from .describe import describe_files

SPLITS = ("train", "val")


def describe_speedrun(folder: str | Path, gpt2_bpe: str | Path | None = None) -> DatasetInfo:
    """Make a folder of speedrun shards a dataset: add `dataset.json` and the tokenizer, leave the rest as it is.

    Files belong to the split that their name contains (`*_train_*.bin`, `*_val_*.bin`), in the order of their names.
    Reads everything once to count, to hash and to check every id. gpt2_bpe: where GPT-2's vocabulary files are.
    Errors: DatasetError names the file and what is wrong with it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.")
    files = {split: sorted(folder.glob(f"*_{split}_*.bin")) for split in SPLITS}
    for split, paths in files.items():
        if not paths:
            raise DatasetError(
                f"{folder}: has no *_{split}_*.bin, so it is no folder of speedrun shards. Fetch some: "
                "`uv run apps/prepare fineweb10B`."
            )
    tokens = {split: [read_header(path) for path in paths] for split, paths in files.items()}
    tokenizer = gpt2_tokenizer(gpt2_bpe)
    boundary = Boundary(tokenizer.eot_id, "start")
    splits = {
        split: describe_files(files[split], tokens[split], "uint16", tokenizer, boundary, HEADER_BYTES)
        for split in SPLITS
    }
    tokenizer.save(folder / TOKENIZER_FOLDER)
    info = DatasetInfo(
        path=folder,
        name=folder.name,
        dtype="uint16",
        vocab_size=tokenizer.vocab_size,
        tokenizer=tokenizer.name,
        splits=splits,
        source={"recipe": "speedrun", "description": f"speedrun shards in {folder.name}", "license": "unknown"},
        options={},
        boundary=boundary,
    )
    info.save()
    return info

"""Small datasets made by hand, so that loaders are tested without `prepare`."""

import hashlib

import numpy as np
import pytest

from gpt_data import DatasetInfo, ShardInfo, SplitInfo
from gpt_data.tokenizers import ByteTokenizer


@pytest.fixture
def make_dataset(tmp_path):
    """make(train, val, shards=1, dtype="uint16", vocab_size=260) -> DatasetInfo; ids are given as integers."""

    def write(split, ids, shards, dtype):
        infos = []
        for index, part in enumerate(np.array_split(np.asarray(ids), shards)):
            content = part.astype({"uint16": "<u2", "uint32": "<u4"}[dtype]).tobytes()
            file = f"{split}_{index:06d}.bin"
            (tmp_path / "made" / file).write_bytes(content)
            infos.append(ShardInfo(file, len(part), hashlib.sha256(content).hexdigest()))
        return SplitInfo(len(ids), len(ids), 1, tuple(infos))

    def make(train=range(100), val=range(50), shards=1, dtype="uint16", vocab_size=260):
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        ByteTokenizer().save(folder / "tokenizer")
        splits = {"train": write("train", train, shards, dtype), "val": write("val", val, shards, dtype)}
        info = DatasetInfo(folder, "made", dtype, vocab_size, "byte", splits, source={}, options={})
        info.save()
        return info

    return make

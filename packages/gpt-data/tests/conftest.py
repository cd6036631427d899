"""Small datasets made by hand, so that loaders are tested without `prepare`."""

import hashlib

import numpy as np
import pytest

from gpt_data import Boundary, DatasetInfo, ShardInfo, SplitInfo
from gpt_data.shard_header import HEADER, MAGIC, VERSION
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


@pytest.fixture
def make_documents(tmp_path_factory):
    """make({"train": [ids of a shard, ...], ...}, at="start", masks=None, offset=0, ...) -> DatasetInfo, boundary 0.

    A new folder each time, so that property tests may call it; masks: as the shards, uint8; offset: bytes of header.
    """

    def make(splits, at="start", masks=None, offset=0, boundary=0, vocab_size=60_000):
        folder = tmp_path_factory.mktemp("documents")
        ByteTokenizer().save(folder / "tokenizer")
        described = {}
        for split, shards in splits.items():
            infos = []
            for index, ids in enumerate(shards):
                header = np.zeros(offset // HEADER.itemsize, HEADER)
                header[:3] = (MAGIC, VERSION, len(ids))[: len(header)]
                content = header.tobytes() + np.asarray(ids, "<u2").tobytes()
                file, mask_file = f"{split}_{index:06d}.bin", None
                (folder / file).write_bytes(content)
                if masks is not None:
                    mask_file = f"{split}_mask_{index:06d}.bin"
                    (folder / mask_file).write_bytes(np.asarray(masks[split][index], np.uint8).tobytes())
                digest = hashlib.sha256(content).hexdigest()
                infos.append(ShardInfo(file, len(ids), digest, offset=offset, mask=mask_file))
            tokens = sum(map(len, shards))
            described[split] = SplitInfo(tokens, 4 * tokens, 1, tuple(infos))
        where = None if at is None else Boundary(boundary, at)
        info = DatasetInfo(folder, "documents", "uint16", vocab_size, "byte", described, {}, {}, boundary=where)
        info.save()
        return info

    return make

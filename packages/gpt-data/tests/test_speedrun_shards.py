"""A folder of the speedrun's shards is described in place; damaged headers and truncated files are named."""

import numpy as np
import pytest

from gpt_data import Boundary, DatasetError, describe_speedrun, open_dataset, sequential
from gpt_data.shard_header import HEADER_BYTES, MAGIC

BOS = 50256


def write_shard(path, documents, magic=MAGIC, version=1, claimed=None):
    ids = np.concatenate([np.array([BOS, *document], "<u2") for document in documents])
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(ids) if claimed is None else claimed
    path.write_bytes(header.tobytes() + ids.tobytes())
    return ids


@pytest.fixture
def shards(tmp_path):
    """(folder, train ids, val ids)"""
    words = [[464, 2068, 7586], [21831], [198, 198, 40, 716]]
    train = [write_shard(tmp_path / f"fineweb_train_{i:06d}.bin", words[i - 1 :] * 5) for i in (1, 2)]
    return tmp_path, np.concatenate(train), write_shard(tmp_path / "fineweb_val_000000.bin", words)


def test_shards_become_a_dataset_and_stay_what_they_were(shards):
    folder, train, val = shards
    with pytest.raises(DatasetError, match=r"is a speedrun folder\. Describe it once.*apps/prepare speedrun"):
        open_dataset(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    info = describe_speedrun(folder)
    assert {path: path.read_bytes() for path in before} == before
    assert open_dataset(folder) == info and info.vocab_size == 50257
    assert info.boundary == Boundary(BOS, "start")
    assert [(s.file, s.offset) for s in info.splits["train"].shards] == [
        ("fineweb_train_000001.bin", HEADER_BYTES),
        ("fineweb_train_000002.bin", HEADER_BYTES),
    ]
    assert (info.splits["train"].tokens, info.splits["train"].documents) == (len(train), 25)
    text = info.load_tokenizer().decode([i for i in val.tolist() if i != BOS])
    assert info.splits["val"].bytes == len(text.encode()) and text.startswith("The quick brown")
    info.verify()


def test_batches_are_the_ids_behind_the_headers(shards):
    folder, train, val = shards
    describe_speedrun(folder)
    splits = sequential(folder, context_length=5, device_batch_size=1)
    for loader, ids in ((splits.train, train), (splits.val, val)):
        batches = [next(loader) for _ in range(len(ids) // 5)]
        assert [i for batch in batches for i in batch.inputs[0].tolist()] == ids[: 5 * len(batches)].tolist()


def test_a_shard_cut_at_any_byte_is_refused(shards):
    folder, _, _ = shards
    path = folder / "fineweb_val_000000.bin"
    content = path.read_bytes()
    describe_speedrun(folder)
    for size in [*range(0, HEADER_BYTES, 101), *range(HEADER_BYTES, len(content))]:
        path.write_bytes(content[:size])
        with pytest.raises(DatasetError, match=r"fineweb_val_000000\.bin: (has|is empty)"):
            open_dataset(folder)
        with pytest.raises(DatasetError, match=r"fineweb_val_000000\.bin: has .*(header|truncated)"):
            describe_speedrun(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magic": 7}, f"begins with 7, a speedrun shard begins with {MAGIC}.*nanogpt"),
        ({"version": 2}, "is of version 2"),
        ({"claimed": 3}, "its header says 3 tokens, 1030 bytes"),
        ({"claimed": -1}, "its header says -1 tokens"),
    ],
)
def test_a_header_that_is_none_is_refused(shards, change, message):
    folder, _, _ = shards
    write_shard(folder / "fineweb_train_000002.bin", [[1, 2, 3]], **change)
    with pytest.raises(DatasetError, match=message):
        describe_speedrun(folder)


def test_a_header_is_looked_at_whenever_the_folder_is_opened(shards):
    folder, _, _ = shards
    describe_speedrun(folder)
    path = folder / "fineweb_train_000002.bin"
    content = path.read_bytes()
    path.write_bytes(b"\x07\0\0\0" + content[4:])  # of the same size, so only the header tells
    with pytest.raises(DatasetError, match=r"fineweb_train_000002\.bin: begins with 7"):
        open_dataset(folder)


def test_an_id_outside_the_vocabulary_is_refused(shards):
    folder, _, _ = shards
    write_shard(folder / "fineweb_train_000002.bin", [[1, 60000, 3]])
    with pytest.raises(DatasetError, match=r"fineweb_train_000002\.bin: holds token id 60000"):
        describe_speedrun(folder)


def test_a_change_behind_the_header_is_found_by_verify(shards):
    folder, _, _ = shards
    info = describe_speedrun(folder)
    path = folder / "fineweb_val_000000.bin"
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"fineweb_val_000000\.bin: sha256 is"):
        info.verify()


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"has no \*_train_\*\.bin.*fineweb10B"):
        describe_speedrun(tmp_path)

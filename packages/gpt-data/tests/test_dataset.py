"""A dataset folder is checked when it is opened; every fault says which file, what was found, what to do."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest

from gpt_data import Boundary, DatasetError, open_dataset, random_windows
from gpt_data.dataset import read_dataset


def test_what_is_saved_is_read(make_dataset):
    made = make_dataset(shards=3)
    read = read_dataset(made.path)
    assert read == made
    assert read.digest == made.digest
    assert read.load_tokenizer().vocab_size == made.vocab_size == 260
    read.verify()


def test_opens_by_name_below_the_root_and_by_path(make_dataset, monkeypatch):
    made = make_dataset()
    assert open_dataset("made", made.path.parent) == made
    assert open_dataset(made.path) == made
    monkeypatch.setenv("DATA_ROOT", str(made.path.parent))
    assert open_dataset("made") == made


@pytest.mark.parametrize("shards", [1, 2])
def test_a_shard_truncated_at_any_byte_is_refused(make_dataset, shards):
    made = make_dataset(train=range(40), shards=shards)
    path = made.path / made.splits["train"].shards[-1].file
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        found = "is empty" if size == 0 else f"has {size} bytes"
        with pytest.raises(DatasetError, match=rf"{path.name}: {found}, expected {len(content)} bytes .*again"):
            read_dataset(made.path)
    path.write_bytes(content + b"\0")
    with pytest.raises(DatasetError, match=f"has {len(content) + 1} bytes"):
        read_dataset(made.path)


def test_a_missing_shard_is_named(make_dataset):
    made = make_dataset()
    os.remove(made.path / "val_000000.bin")
    with pytest.raises(DatasetError, match=r"val_000000\.bin: is missing, expected 100 bytes"):
        read_dataset(made.path)


def test_wrong_dtype_is_refused_by_size(make_dataset):
    made = make_dataset()
    edit(made, lambda content: content.update(dtype="uint32"))
    with pytest.raises(DatasetError, match=r"has 200 bytes, expected 400 bytes \(100 ids of uint32\).*dtype"):
        read_dataset(made.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(dtype="int8"), "dtype is 'int8', expected one of uint16, uint32"),
        (lambda c: c.update(format=99), "format is 99, this version of gpt-data reads 1. Update"),
        (lambda c: c.pop("splits"), "cannot be understood.*splits"),
        (lambda c: c["splits"]["val"].update(tokens=7), "the shards of 'val' have 50 tokens, expected 7"),
        (lambda c: c["splits"]["val"]["shards"][0].update(file="../x.bin"), "outside the dataset folder"),
        (lambda c: c["splits"]["val"]["shards"][0].pop("sha256"), "cannot be understood.*sha256"),
    ],
)
def test_a_damaged_description_is_explained(make_dataset, change, message):
    made = make_dataset()
    edit(made, change)
    with pytest.raises(DatasetError, match=message):
        read_dataset(made.path)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_cut_description_is_explained(make_dataset, size):
    made = make_dataset()
    path = made.path / "dataset.json"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DatasetError, match=r"dataset\.json: cannot be understood"):
        read_dataset(made.path)


def test_an_id_outside_the_vocabulary_is_caught_in_the_batch_that_holds_it(make_dataset):
    made = make_dataset(train=[0] * 20 + [260])
    loader = random_windows(made.path, context_length=20, device_batch_size=1).train
    with pytest.raises(DatasetError, match=r"'train': holds token id 260, the vocabulary has 260 \(0 to 259\)"):
        next(loader)
    with pytest.raises(DatasetError, match=r"train_000000\.bin: holds token id 260"):
        made.verify()


def test_verify_finds_one_changed_bit(make_dataset):
    made = make_dataset(shards=2)
    path = made.path / "val_000001.bin"
    content = bytearray(path.read_bytes())
    made.verify()
    content[4] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"val_000001\.bin: sha256 is [0-9a-f]{64}, dataset\.json says [0-9a-f]{64}"):
        made.verify()


def test_digest_tells_datasets_apart_and_not_places(make_dataset, tmp_path):
    first = make_dataset()
    (tmp_path / "other").mkdir()
    moved = first.path.rename(tmp_path / "other" / "moved")
    assert read_dataset(moved).digest == first.digest
    assert make_dataset(train=range(1, 101)).digest != first.digest
    assert make_dataset(shards=2).digest != first.digest


def test_unknown_names_say_what_exists(tmp_path):
    with pytest.raises(DatasetError, match=r"Known names: stdlib, docs, .*, task_mixture\. Your own text: `uv"):
        open_dataset("webtext", tmp_path)
    with pytest.raises(DatasetError, match="Prepare it: `uv run apps/prepare shakespeare`"):
        open_dataset("shakespeare", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundary": {"id": 256, "at": "middle"}}, r"boundary is .*'middle'.*at 'start' or 'end'"),
        ({"boundary": {"id": "256", "at": "end"}}, r"boundary is .*expected an id below 260"),
        ({"boundary": {"id": 260, "at": "end"}}, r"boundary is .*expected an id below 260"),
        ({"vocab_size": "260"}, "vocab_size is '260', expected a number of ids"),
        ({"vocab_size": None}, "vocab_size is None, expected a number of ids"),
    ],
)
def test_a_description_that_means_nothing_is_refused(make_dataset, change, message):
    made = make_dataset()
    edit(made, lambda content: content.update(change))
    with pytest.raises(DatasetError, match=message):
        read_dataset(made.path)


def test_the_digest_covers_where_documents_begin(make_dataset):
    made = make_dataset()
    digests = {replace(made, boundary=b).digest for b in (None, Boundary(256, "start"), Boundary(256, "end"))}
    assert len(digests) == 3


def test_bits_per_byte(make_dataset):
    made = make_dataset()
    edit(made, lambda content: content["splits"]["val"].update(bytes=200))
    info = read_dataset(made.path)
    assert info.bytes_per_token("val") == 4.0
    nats = math.log(2) * 8  # a model that spends 8 bits per token of 4 bytes
    assert nats / math.log(2) / info.bytes_per_token("val") == pytest.approx(2.0)


def test_uint32_ids_survive(make_dataset):
    made = make_dataset(train=np.arange(100) + 70_000, dtype="uint32", vocab_size=80_000)
    batch = next(random_windows(made.path, context_length=9, device_batch_size=2).train)
    assert batch.inputs.min() >= 70_000


def edit(made, change):
    path = made.path / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))

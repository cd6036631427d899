"""A Hugging Face dataset streamed from local files: every token once, exact resume, disjoint ranks, clear errors."""

import itertools
import json

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, hf_streaming
from gpt_data.tokenizers import BPETokenizer, ByteTokenizer

EOT = ByteTokenizer.eot_id


def text(file, row):
    """Lengths from 0 (left out) to 39 characters, the file and the row readable in each."""
    return f"<{file}.{row}>" + "x" * (7 * row % 32) if (file, row) != (1, 3) else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three parquet files for training, one for validation, one for test."""
    path = tmp_path_factory.mktemp("hub")
    for file in range(3):
        table = pa.table({"text": [text(file, row) for row in range(11)], "id": list(range(11))})
        pq.write_table(table, path / f"train-{file:05d}-of-00003.parquet", row_group_size=4)
    for split in ("validation", "test"):
        pq.write_table(pa.table({"text": [f"{split} {i}" for i in range(9)]}), path / f"{split}-00000-of-00001.parquet")
    return path


def open_stream(folder, T=8, B=2, **options):
    return hf_streaming(str(folder), T, B, **{"tokenizer": "byte", "prefetch": 0, **options})


def take(loader, count):
    return list(itertools.islice(loader, count))


def tokens(batches):
    return [i for batch in batches for i in batch.inputs.flatten().tolist()]


def documents(ids):
    """Whole documents in a run of ids: what stands between two ends of text."""
    ends = [i for i, token in enumerate(ids) if token == EOT]
    return [ByteTokenizer().decode(ids[a + 1 : b]) for a, b in itertools.pairwise([-1, *ends])]


def same(first, second):
    assert len(first) == len(second)
    assert all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        for a, b in zip(first, second, strict=True)
    )


def test_every_document_comes_once_per_epoch_in_the_order_of_the_files(folder):
    stream = open_stream(folder, shuffle_window=0).train
    expected = [text(file, row) for file in range(3) for row in range(11) if text(file, row)]
    epoch = sum(len(t) + 1 for t in expected)
    batches = take(stream, 2 * epoch // 16 + 2)
    assert documents(tokens(batches))[: 2 * len(expected)] == expected * 2
    flat = np.array(tokens(batches))
    targets = np.array([i for batch in batches for i in batch.targets.flatten().tolist()])
    assert np.array_equal(flat[1:], targets[:-1])
    assert batches[0].inputs.dtype == torch.int64 and batches[0].inputs.shape == (2, 8)


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_ranks_share_the_documents_of_an_epoch(folder, world_size):
    shares = []
    for rank in range(world_size):
        stream = open_stream(folder, rank=rank, world_size=world_size, shuffle_window=4).train
        read = documents(tokens(take(stream, 70)))  # more than an epoch, whatever the rank's share
        again = next(i for i, document in enumerate(read) if document in read[:i])
        shares += read[:again]
    assert sorted(shares) == sorted(text(file, row) for file in range(3) for row in range(11) if text(file, row))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=st.integers(0, 40), ahead=st.integers(1, 5), rank=st.integers(0, 1), window=st.sampled_from([0, 3, 1000]))
def test_a_state_continues_the_identical_stream(folder, done, ahead, rank, window):
    def build():
        return open_stream(folder, rank=rank, world_size=2, shuffle_window=window, seed=3).train

    straight = build()
    take(straight, done)
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = build()
    take(resumed, 2)
    resumed.load_state_dict(state)
    same(take(resumed, ahead), take(straight, ahead))
    again = build()  # from a state after a state: `datasets` may describe one position in two ways
    again.load_state_dict(json.loads(json.dumps(resumed.state_dict())))
    same(take(again, ahead), take(straight, ahead))


def test_the_order_is_a_function_of_the_seed_and_changes_every_epoch(folder):
    def epochs(seed):
        read = documents(tokens(take(open_stream(folder, seed=seed).train, 200)))
        return read[:32], read[32:64]

    first, second = epochs(1)
    assert sorted(first) == sorted(second) and first != second
    assert epochs(1) == (first, second) and epochs(2)[0] != first


def test_splits_are_found_and_documents_can_be_held_out_instead(folder):
    splits = open_stream(folder)
    assert documents(tokens(take(splits.val, 9)))[:9] == [f"validation {i}" for i in range(9)]
    assert splits.test is not None and documents(tokens(take(splits.test, 4)))[0] == "test 0"
    assert (splits.dataset.vocab_size, splits.dataset.path) == (260, None)
    held_out = open_stream(folder, val_split="", val_documents=5, shuffle_window=0)
    assert documents(tokens(take(held_out.val, 9)))[:5] == [text(0, row) for row in range(5)]
    assert documents(tokens(take(held_out.train, 9)))[0] == text(0, 5)
    with pytest.raises(ValueError, match=r"val_documents is 5, but .* has a split 'validation'"):
        open_stream(folder, val_documents=5)


def test_a_saved_dataset_and_jsonl_files_stream_too(tmp_path):
    rows = [{"text": f"row {i}"} for i in range(6)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    saved = open_stream(tmp_path / "saved", val_documents=2, shuffle_window=0)
    files = hf_streaming(
        "json",
        8,
        2,
        tokenizer="byte",
        prefetch=0,
        data_files=str(tmp_path / "rows.jsonl"),
        val_documents=2,
        shuffle_window=0,
    )
    same(take(saved.train, 9), take(files.train, 9))
    assert documents(tokens(take(saved.train, 4)))[0] in {f"row {i}" for i in range(2, 6)}


@pytest.mark.parametrize(
    "change",
    [{"world_size": 2}, {"seed": 9}, {"shuffle_window": 5}, {"text_field": "id"}, {"T": 9}, {"tokenizer": None}],
)
def test_a_state_of_another_stream_is_refused(folder, tmp_path, change):
    if "tokenizer" in change:
        from gpt_data.tokenizers import CharTokenizer

        CharTokenizer("abc", eot=True).save(tmp_path / "char")
        change = {"tokenizer": str(tmp_path / "char")}
    state = open_stream(folder).train.state_dict()
    with pytest.raises(ValueError, match="this loader state has"):
        open_stream(folder, **change).train.load_state_dict(state)


def test_two_vocabularies_of_one_name_and_size_are_told_apart(folder, tmp_path):
    for name, sample in (("a", "abab" * 50), ("b", "xyxy" * 50)):
        BPETokenizer.train([sample], 258).save(tmp_path / name)
    first, second = (open_stream(folder, tokenizer=str(tmp_path / name)) for name in "ab")
    assert first.dataset.vocab_size == second.dataset.vocab_size and first.dataset.digest != second.dataset.digest
    with pytest.raises(ValueError, match="this loader state has stream = "):
        second.train.load_state_dict(first.train.state_dict())


@pytest.mark.parametrize(
    "change", [{"document": 10**6}, {"token": 10**6}, {"token": "1"}, {"stream": None, "window": 3}]
)
def test_a_place_that_is_not_there_is_refused(folder, change):
    loader = open_stream(folder).train
    take(loader, 3)
    state = loader.state_dict()
    state["at"] = {**state["at"], **change}
    with pytest.raises(ValueError, match=r"is not there: the data has changed|expected a stream and the numbers"):
        open_stream(folder).train.load_state_dict(state)
    del state["at"]
    with pytest.raises(ValueError, match="expected a stream and the numbers"):
        open_stream(folder).train.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_field": "id", "shuffle_window": 0}, r"column 'id' holds int, not text"),
        ({"text_field": "body"}, r"has no column 'body', only text, id\. Give text_field"),
        ({"split": "training"}, r"has no split 'training', only"),
        ({"val_split": "held"}, r"has no split 'held', only"),
        ({"val_split": ""}, r"has no split for validation .*val_documents: 1000"),
        ({"shuffle_window": -1}, r"must be at least 0, got -1"),
    ],
)
def test_what_is_not_there_is_named(folder, options, message):
    with pytest.raises(ValueError, match=message):
        next(open_stream(folder, **options).train)


def test_a_dataset_that_is_not_there_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DatasetError, match=r"cannot open the dataset .*local folder"):
        open_stream(tmp_path / "nothing")


def test_an_epoch_without_text_ends_with_an_error(tmp_path):
    pq.write_table(pa.table({"text": ["", "", None]}), tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match=r"holds no text for rank 0 of 1"):
        next(open_stream(tmp_path, val_documents=1).train)


def test_a_whole_pass_is_not_promised(folder):
    with pytest.raises(ValueError, match=r"how long a stream is .*eval_iters"):
        _ = open_stream(folder).val.batches_per_epoch

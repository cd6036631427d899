"""Datasets from tables: every row once, splits by hash, exact counts, the same digest from any number of threads."""

import hashlib
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from gpt_data import DatasetError, open_dataset, prepare
from gpt_data.preparation.encode import split_of

TEXTS = [f"Row {i}: é東🦊 is {i * i}.\n\n" * (1 + i % 7) for i in range(400)]
"""All different."""


def write(path, texts, field="text", **more):
    """A table with the format of its name."""
    rows = [{"id": i, field: text, **more} for i, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=20)
        return path
    content = "".join(json.dumps(row, ensure_ascii=bool(row["id"] % 2)) + "\n" for row in rows).encode()
    if path.suffix == ".jsonl":
        path.write_bytes(content)
    else:
        with pyarrow.CompressedOutputStream(str(path), {".gz": "gzip", ".zst": "zstd"}[path.suffix]) as file:
            file.write(content)
    return path


@pytest.fixture
def mixed(tmp_path):
    """A folder with the 400 texts in all formats: 100 in each of four tables, 20 of them as files instead."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i, text in enumerate(TEXTS[:20]):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    write(folder / "a.jsonl", TEXTS[20:100])
    write(folder / "b.jsonl.gz", TEXTS[100:200])
    write(folder / "c.jsonl.zst", [*TEXTS[200:300], ""])
    write(folder / "d.parquet", [*TEXTS[300:400], "", ""])
    return folder


def documents_of(info, split):
    tokenizer, stream = info.load_tokenizer(), info.stream(split)
    ids = stream.read(0, len(stream))
    ends = np.flatnonzero(ids == tokenizer.eot_id)
    assert ends[-1] == len(ids) - 1
    return [tokenizer.decode(part[:-1].tolist()) for part in np.split(ids, ends[:-1] + 1)]


@pytest.mark.parametrize("tokenizer", ["byte", "char", "bpe"])
def test_every_row_is_there_once_in_its_split_and_counted(mixed, tmp_path, tokenizer):
    info = prepare("text", [mixed], tokenizer=tokenizer, root=tmp_path / "data", shard_bytes=5000, val_one_in=10)
    found = {split: documents_of(info, split) for split in info.splits}
    assert sorted(found["train"] + found["val"]) == sorted(TEXTS)
    for split, documents in found.items():
        assert {split_of(text.encode(), 10) for text in documents} == {split}
        assert info.splits[split].documents == len(documents) > 0
        assert info.splits[split].bytes == sum(len(text.encode()) for text in documents)
    assert info.source["documents"] == 400 and info.source["tables"] == 4
    assert info.source["left_out"] == {"duplicate": 0, "empty": 3, "not_text": 0}
    assert info.options["val_one_in"] == 10 and "divisible by 10" in info.source["validation"]
    assert len(info.splits["train"].shards) > 5
    info.verify()
    assert open_dataset("mixed", tmp_path / "data") == info


def test_the_digest_is_the_same_from_any_number_of_threads(mixed, tmp_path):
    made = [
        prepare("text", [mixed], vocab_size=300, out=tmp_path / f"{workers}", shard_bytes=4000, workers=workers)
        for workers in (1, 2, 5)
    ]
    assert len({info.digest for info in made}) == 1
    assert len({(info.path / "sources.jsonl").read_text() for info in made}) == 1
    assert len({info.source["sha256"] for info in made}) == 1


def test_a_format_changes_nothing_but_the_names(tmp_path):
    digests = set()
    for kind in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet"):
        table = write(tmp_path / f"t.{kind}", TEXTS)
        info = prepare("text", [table], tokenizer="byte", out=tmp_path / f"out-{kind}", val_one_in=7)
        digests.add((info.digest, tuple(documents_of(info, "train"))))
    assert len(digests) == 1


def test_tables_are_recorded_with_their_hashes(mixed, tmp_path):
    info = prepare("text", [mixed], tokenizer="byte", out=tmp_path / "out")
    facts = [json.loads(line) for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert len(facts) == 24
    for fact in facts:
        content = (tmp_path / fact["document"]).read_bytes()
        assert fact["sha256"] == hashlib.sha256(content).hexdigest() and fact["bytes"] == len(content)


def test_a_trained_tokenizer_learns_from_the_train_rows_alone(tmp_path, monkeypatch):
    from gpt_data.tokenizers import BPETokenizer

    seen = []
    train = BPETokenizer.train
    monkeypatch.setattr(BPETokenizer, "train", lambda t, size: train((seen.append(x) or x for x in t), size))
    table = write(tmp_path / "t.parquet", TEXTS)
    info = prepare("text", [table], vocab_size=300, out=tmp_path / "out", val_one_in=4)
    assert sorted(seen) == sorted(documents_of(info, "train"))


def test_only_a_share_of_much_text_is_learned_from(tmp_path, monkeypatch):
    from gpt_data.preparation import vocabulary
    from gpt_data.tokenizers import BPETokenizer

    seen = []
    train = BPETokenizer.train
    monkeypatch.setattr(BPETokenizer, "train", lambda t, size: train((seen.append(x) or x for x in t), size))
    monkeypatch.setattr(vocabulary, "TRAIN_BYTES", 1 << 17)
    monkeypatch.setattr("gpt_data.preparation.jsonl.BATCH_BYTES", 1 << 12)
    texts = [f"{i} " * 500 for i in range(500)]
    table = write(tmp_path / "t.jsonl", texts)
    prepare("text", [table], vocab_size=260, out=tmp_path / "out", shard_bytes=1 << 18)
    learned, everything = sum(map(len, seen)), sum(map(len, texts))
    assert everything / 12 < learned < everything / 4
    assert len(set(seen)) == len(seen) and max(map(texts.index, seen)) > 300  # from the later parts too


def test_a_column_can_be_chosen(tmp_path):
    table = write(tmp_path / "t.parquet", TEXTS, field="body", text="not this")
    info = prepare("text", [table], tokenizer="byte", out=tmp_path / "out", text_field="body")
    assert set(documents_of(info, "train")) <= set(TEXTS) and info.options["text_field"] == "body"


def test_a_saved_tokenizer_can_be_used_again(tmp_path):
    first = prepare("text", [write(tmp_path / "t.jsonl", TEXTS)], vocab_size=300, out=tmp_path / "first")
    second = prepare(
        "text", [write(tmp_path / "t.parquet", TEXTS)], tokenizer=str(first.tokenizer_dir), out=tmp_path / "second"
    )
    assert second.digest == first.digest
    with pytest.raises(DatasetError, match=r"was prepared with tokenizer = '.*first/tokenizer', not 'byte'"):
        prepare("text", [tmp_path / "t.parquet"], tokenizer="byte", out=tmp_path / "second")


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
    from gpt_data.tokenizers import CharTokenizer

    CharTokenizer("".join(sorted(set("".join(TEXTS))))).save(tmp_path / "chars")
    table = write(tmp_path / "t.jsonl", TEXTS)
    with pytest.raises(DatasetError, match="no end-of-text token, which texts of several documents need"):
        prepare("text", [table], tokenizer=str(tmp_path / "chars"), out=tmp_path / "out")


def test_long_rows_and_special_spellings_are_plain_text(tmp_path):
    texts = ["<|endoftext|> is text here " * 10, "a " * 600_000, *TEXTS[:40]]
    info = prepare("text", [write(tmp_path / "t.jsonl", texts)], vocab_size=300, out=tmp_path / "out", val_one_in=5)
    assert sorted(documents_of(info, "train") + documents_of(info, "val")) == sorted(texts)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["", ""], {}, "every document is empty"),
        (TEXTS[:3], {"val_one_in": 10**9}, r"none of 3 documents fell to 'val', where one in 1000000000.*--val-one-in"),
        (TEXTS, {"text_field": "body"}, r"columns id, text, not 'body'"),
    ],
)
def test_what_cannot_be_a_dataset_is_explained(tmp_path, texts, options, message):
    table = write(tmp_path / "t.parquet", texts)
    with pytest.raises(DatasetError, match=message):
        prepare("text", [table], tokenizer="byte", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("text", {"val_one_in": 1}, "val_one_in is 1, expected at least 2"),
        ("text", {"subset": "x"}, r"text takes no subset \(got 'x'\); it takes text_field, val_one_in"),
        ("stdlib", {"chunks": 3}, "stdlib takes no chunks .* no options of its own"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(name, root=tmp_path, **options)


def test_one_bad_row_stops_everything_and_leaves_no_dataset(tmp_path):
    table = write(tmp_path / "t.jsonl", TEXTS)
    with open(table, "a") as file:
        file.write('{"text": 3}\n')
    with pytest.raises(DatasetError, match=r"t\.jsonl, line 401: 'text' is a number"):
        prepare("text", [table], tokenizer="byte", out=tmp_path / "out", shard_bytes=2000)
    assert not (tmp_path / "out").exists()

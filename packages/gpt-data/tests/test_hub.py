"""Datasets of the hub, from folders laid out like its repositories; without a network an answer at once."""

import json
import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from gpt_data import DatasetError, prepare
from gpt_data.preparation import RECIPES, hub
from gpt_data.preparation.tables import Rows
from gpt_data.preparation.wikitext import articles

TEXTS = [f"Page {i} of the web.\n" * (1 + i % 5) for i in range(120)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def repository(folder, files, configs=None):
    """Write a folder like a repository: files is {path: texts}, configs {subset: {split: pattern}}."""
    for name, texts in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=10)
        else:
            with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
                file.write("".join(json.dumps({"text": text, "meta": {}}) + "\n" for text in texts).encode())
    if configs:
        lines = ["---", "configs:"]
        for subset, splits in configs.items():
            lines += [f"- config_name: {subset}", "  data_files:"]
            lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
        (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def texts_of(info, split):
    tokenizer, stream = info.load_tokenizer(), info.stream(split)
    ids = stream.read(0, len(stream))
    ends = np.flatnonzero(ids == tokenizer.eot_id)
    return [tokenizer.decode(part[:-1].tolist()) for part in np.split(ids, ends[:-1] + 1)]


def made(name, texts, tmp_path, **options):
    return prepare(name, texts, tokenizer="byte", root=tmp_path / "data", quiet=True, **options)


def test_a_repository_with_one_split_is_split_by_hash(tmp_path):
    files = {f"plain_text/train-0000{i}-of-00002.parquet": TEXTS[60 * i : 60 * i + 60] for i in range(2)}
    info = made("openwebtext", [repository(tmp_path / "owt", files)], tmp_path, val_one_in=8)
    assert (info.name, set(info.splits)) == ("openwebtext", {"train", "val"})
    assert sorted(texts_of(info, "train") + texts_of(info, "val")) == sorted(TEXTS)
    assert info.source["hub"]["repository"] == "owt" and "divisible by 8" in info.source["validation"]


def test_the_hubs_share_for_validation_is_small(tmp_path):
    texts = [f"short {i}" for i in range(9000)]
    info = made("openwebtext", [repository(tmp_path / "owt", {"train.parquet": texts})], tmp_path)
    assert 0 < info.splits["val"].documents < 20


def test_a_subset_is_what_the_readme_says(tmp_path):
    files = {"sample/10BT/0.parquet": TEXTS[:60], "sample/100BT/0.parquet": TEXTS}
    subsets = {f"sample-{size}": {"train": f"sample/{size}/*"} for size in ("10BT", "100BT")}
    folder = repository(tmp_path / "edu", files, subsets)
    small = made("fineweb_edu", [folder], tmp_path, val_one_in=6)
    assert sum(split.documents for split in small.splits.values()) == 60 and small.options["subset"] == "sample-10BT"
    with pytest.raises(DatasetError, match="was prepared with subset = 'sample-10BT', not 'sample-100BT'"):
        made("fineweb_edu", [folder], tmp_path, subset="sample-100BT")
    large = made("fineweb_edu", [folder], tmp_path, subset="sample-100BT", val_one_in=6, force=True)
    assert sum(split.documents for split in large.splits.values()) == 120
    with pytest.raises(DatasetError, match="subset is 'all', expected one of sample-10BT, sample-100BT"):
        made("fineweb_edu", [folder], tmp_path, subset="all", force=True)
    with pytest.raises(DatasetError, match=r"has no usable subset 'sample-350BT' .*not found"):
        made("fineweb_edu", [folder], tmp_path, subset="sample-350BT", force=True)


def test_copies_are_called_copies_and_a_missing_subset_is_told(tmp_path, capsys):
    folder = repository(tmp_path / "plain", {"train-0.parquet": TEXTS})
    info = prepare("fineweb_edu", [folder], tokenizer="byte", val_one_in=6, root=tmp_path / "data")
    assert info.source["description"] == "copies of HuggingFaceFW/fineweb-edu (sample-10BT): plain"
    assert info.source["hub"] == {"repository": "plain", "subset": None}
    assert "plain has no subsets, so all that is in it counts as 'sample-10BT'" in capsys.readouterr().err


def test_own_splits_are_kept_and_packed_lines_read(tmp_path):
    files = {
        "train/chunk1/example_train_0.jsonl.zst": TEXTS[:50],
        "train/chunk2/example_train_0.jsonl.zst": TEXTS[50:80],
        "validation/chunk1/example_holdout_0.jsonl.zst": TEXTS[80:100],
        "test/chunk1/example_holdout_0.jsonl.zst": TEXTS[100:],
    }
    info = made("slimpajama", [repository(tmp_path / "slim", files)], tmp_path)
    assert {split: texts_of(info, split) for split in info.splits} == {
        "train": TEXTS[:80],
        "val": TEXTS[80:100],
        "test": TEXTS[100:],
    }
    assert info.source["validation"] == "the source's own split"
    facts = [json.loads(line) for line in (info.path / "sources.jsonl").read_text().splitlines()]
    assert {fact["document"] for fact in facts} == {f"{name.split('/')[0]}/{name}" for name in files}


def test_single_files_tell_their_split_by_their_names(tmp_path):
    folder = repository(tmp_path, {"train-0.parquet": TEXTS[:90], "validation-0.parquet": TEXTS[90:]})
    info = made("slimpajama", [folder / "train-0.parquet", folder / "validation-0.parquet"], tmp_path)
    assert (texts_of(info, "train"), texts_of(info, "val")) == (TEXTS[:90], TEXTS[90:])


def test_any_dataset_by_its_name(tmp_path):
    files = {"data/train-0.parquet": TEXTS[:60], "data/extra-0.parquet": TEXTS[60:]}
    subsets = {"default": {"train": "data/train-*", "raw_extra": "data/extra-*"}}
    folder = repository(tmp_path / "TinyTexts", files, subsets)
    info = made("hf", [folder], tmp_path, val_one_in=6)
    assert info.name == "TinyTexts" and sum(split.documents for split in info.splits.values()) == 60
    with pytest.raises(DatasetError, match="hf needs the name of a dataset"):
        made("hf", [], tmp_path)
    repository(tmp_path / "None", {"data/a.parquet": TEXTS}, {"default": {"sft": "data/*"}})
    with pytest.raises(DatasetError, match="no split 'train', only sft"):
        made("hf", [tmp_path / "None"], tmp_path)


def test_files_that_are_no_tables_are_named(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "train.csv").write_text("text\nhello\n")
    with pytest.raises(DatasetError, match=r"train\.csv: is neither parquet nor jsonl"):
        made("hf", [folder], tmp_path)


# --- WikiText -----------------------------------------------------------------------------------------------------

ONE = [" = One = \n", "", " First line , <unk> = 1 . \n", "", " = = A section = = \n", "", " Of one . \n"]
TWO = [" = Two ( number ) = \n", "", " = 2 is no title here = \n", " More . \n", ""]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_lines_become_articles_wherever_they_are_cut(batch):
    rows = ["", *ONE, "", *TWO, ""]
    batches = [Rows(rows[i : i + batch], 10) for i in range(0, len(rows), batch)]
    found = list(articles(iter(batches)))
    texts = [text for rows in found for text in rows.values]
    whole = "".join(row or " \n" for row in rows)
    assert "".join(texts) == whole
    assert [text.strip().splitlines()[0].strip() for text in texts] == ["= One =", "= Two ( number ) ="]
    assert sum(rows.weight for rows in found) == 10 * len(batches)


def test_wikitext_keeps_its_splits_and_joins_over_files(tmp_path):
    name = "wikitext-103-raw-v1"
    lines = ["", *ONE, "", *TWO]
    files = {
        f"{name}/train-00000-of-00002.parquet": lines[:5],
        f"{name}/train-00001-of-00002.parquet": lines[5:],
        f"{name}/validation-00000-of-00001.parquet": TWO,
        f"{name}/test-00000-of-00001.parquet": ONE,
    }
    subsets = {name: {split: f"{name}/{split}-*" for split in ("test", "train", "validation")}}
    info = made("wikitext", [repository(tmp_path / "wiki", files, subsets)], tmp_path)
    train = texts_of(info, "train")
    assert "".join(train) == "".join(line or " \n" for line in lines) and len(train) == 2
    assert info.splits["val"].documents == info.splits["test"].documents == 1


# --- the speedrun's shards ----------------------------------------------------------------------------------------


def speedrun_folder(folder, chunks):
    folder.mkdir()
    names = ["fineweb_val_000000.bin", *(f"fineweb_train_{i:06d}.bin" for i in range(1, chunks + 1))]
    for number, name in enumerate(names):
        ids = np.array([50256, 15496, 995, number] * 25, "<u2")
        header = np.zeros(256, "<i4")
        header[:3] = 20240520, 1, len(ids)
        (folder / name).write_bytes(header.tobytes() + ids.tobytes())
    return folder


def test_the_speedruns_files_are_taken_as_they_are(tmp_path):
    folder = speedrun_folder(tmp_path / "shards", 5)
    info = prepare("fineweb10B", [folder], chunks=3, root=tmp_path / "data", quiet=True)
    assert [shard.file for shard in info.splits["train"].shards] == [f"fineweb_train_00000{i}.bin" for i in (1, 2, 3)]
    assert (info.splits["train"].tokens, info.splits["train"].documents) == (300, 75)
    assert (info.options["chunks"], info.boundary.at, info.source["recipe"]) == (3, "start", "fineweb10B")
    info.verify()
    assert prepare("fineweb10B", [folder], root=tmp_path / "data", quiet=True) == info
    with pytest.raises(DatasetError, match=r"fineweb_train_000006\.bin: is not in what --text names.*--chunks N"):
        prepare("fineweb10B", [folder], chunks=6, root=tmp_path / "data", force=True)
    with pytest.raises(ValueError, match="chunks is 0, expected 1 to 103"):
        prepare("fineweb10B", [folder], chunks=0, root=tmp_path / "other")
    with pytest.raises(ValueError, match="made of GPT-2's ids, not of 'byte'"):
        prepare("fineweb10B", [folder], chunks=3, tokenizer="byte", root=tmp_path / "other")


# --- without a network --------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


HUB = [name for name, recipe in RECIPES.items() if "(hub)" in recipe.summary or name == "hf"]


@pytest.mark.parametrize("name", HUB)
def test_without_a_network_it_fails_at_once_with_what_to_do(no_network, tmp_path, name):
    began = time.monotonic()
    with pytest.raises(DatasetError, match=r"hub cannot be reached .*hf download .*--text"):
        prepare(name, ["roneneldan/TinyStories"] if name == "hf" else [], root=tmp_path, quiet=True)
    assert time.monotonic() - began < 10
    assert not (tmp_path / name).exists()


def test_every_hub_recipe_is_tested():
    assert len(HUB) == 7


def test_without_the_packages_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'gpt-data\[hub\]'"):
        prepare("openwebtext", root=tmp_path, quiet=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'gpt-data\[hub\]'"):
        prepare("openwebtext", [tmp_path], root=tmp_path, quiet=True)


def test_files_of_the_hub_are_asked_for_by_commit(tmp_path, monkeypatch):
    """What the library lists becomes downloads of exactly these files at this commit."""
    asked = []

    def fetch(repository, path, revision):
        asked.append((repository, path, revision))
        target = tmp_path / path.replace("/", "_")
        pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS[:20]}), target)
        return target

    monkeypatch.setattr(hub, "ask_hub", lambda name, revision: ("c0ffee", "odc-by"))
    listed = {"train": [f"hf://datasets/Skylion007/openwebtext@c0ffee/plain_text/train-{i}.parquet" for i in range(2)]}
    monkeypatch.setattr(hub, "_data_files", lambda name, subset, revision: listed)
    monkeypatch.setattr(hub, "download_file", fetch)
    info = made("openwebtext", [], tmp_path, val_one_in=6)
    assert asked == [("Skylion007/openwebtext", f"plain_text/train-{i}.parquet", "c0ffee") for i in range(2)]
    assert info.source["hub"] == {"repository": "Skylion007/openwebtext", "subset": None, "revision": "c0ffee"}
    assert info.source["license"] == "odc-by"

"""Which files a user's paths name: each once, none that `prepare` wrote, and all with a name."""

import json
import os

import pytest

from gpt_data import prepare


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory `place` with a table and a text."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "r.jsonl").write_text("".join(json.dumps({"text": f"Row {i}."}) + "\n" for i in range(100)))
    (folder / "a.txt").write_text("A text.")
    monkeypatch.chdir(folder)
    return folder


def made(name, paths, **options):
    return prepare(name, paths, tokenizer="byte", val_one_in=4, quiet=True, **options)


def documents(info):
    return sum(split.documents for split in info.splits.values())


def test_a_table_that_is_named_twice_is_read_once(here):
    os.symlink("r.jsonl", "again.jsonl")
    for number, paths in enumerate((["r.jsonl", here / "r.jsonl"], ["r.jsonl", "../place/r.jsonl", "again.jsonl"])):
        info = made("text", paths, out=f"../{number}")
        assert (documents(info), info.source["tables"]) == (100, 1)
    (here / "again.jsonl").unlink()
    assert documents(made("text", [here, "r.jsonl"], out="../both")) == 101
    assert documents(made("openwebtext", ["r.jsonl", here / "r.jsonl"], out="../hub")) == 100


def test_what_prepare_wrote_is_no_text(here):
    first = made("text", ["."], out="data/first")
    assert first.source["description"] == "text: place"
    names = [json.loads(line)["document"] for line in (first.path / "sources.jsonl").read_text().splitlines()]
    assert sorted(names) == ["place/a.txt", "place/r.jsonl"]
    assert made("text", ["."], out="data/second").digest == first.digest
    assert made("text", ["."], out="data/first", force=True).digest == first.digest


def test_a_folder_of_texts_may_hold_a_file_called_like_a_description(here):
    (here / "deep").mkdir()
    (here / "deep" / "dataset.json").write_text('{"name": "somebody else\'s"}')
    assert documents(made("text", ["."], out="data/out")) == 102

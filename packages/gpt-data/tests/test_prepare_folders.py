"""What folders of users hold besides good texts: tables without rows, names that are not UTF-8."""

import json
import os
from pathlib import Path

import pytest

from gpt_data import DatasetError, prepare

OPTIONS = {"tokenizer": "byte", "val_one_in": 5, "quiet": True}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"row number {i}"}) + "\n" for i in range(50)))
    return folder


def test_a_table_without_rows_is_left_out_and_counted_as_empty(folder, tmp_path):
    alone = prepare("text", [folder], out=tmp_path / "alone", **OPTIONS)
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.ndjson").write_text("\n\n")
    info = prepare("text", [folder], out=tmp_path / "out", **OPTIONS)
    assert info.digest == alone.digest and info.source["sha256"] == alone.source["sha256"]
    assert info.source["left_out"]["empty"] == 2 and info.source["tables"] == 1


def test_nothing_but_tables_without_rows_is_an_error(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    with pytest.raises(DatasetError, match=r"no text in text: empty\.jsonl .*'empty': 1"):
        prepare("text", [path], out=tmp_path / "out", **OPTIONS)


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_a_name_that_is_not_utf8_is_recorded(folder, tmp_path, ending):
    name = b"caf\xe9" + ending.encode()
    try:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_text('{"text": "another"}\n')
    except OSError:
        pytest.skip("this file system takes no such names")
    info = prepare("text", [folder], out=tmp_path / "out", **OPTIONS)
    facts = [json.loads(line) for line in (info.path / "sources.jsonl").read_text("utf-8").splitlines()]
    assert b"in/" + name in [os.fsencode(fact["document"]) for fact in facts]
    info.verify()

"""Input that changes while it is prepared is noticed, at whatever moment it does."""

import dataclasses
import json
import os

import pytest

from gpt_data import DatasetError, prepare
from gpt_data.preparation import build_text
from gpt_data.preparation.build import Context
from gpt_data.preparation.progress import Progress
from gpt_data.preparation.sources import text_source
from gpt_data.preparation.staging import Staging


def changing(monkeypatch, module, name, path, content):
    """`path` gets `content`, of the same size as before, right after the function of this name was called."""
    real = getattr(module, name)

    def call(*args, **kwargs):
        found = real(*args, **kwargs)
        assert len(content) == path.stat().st_size
        before = path.stat().st_mtime_ns
        path.write_bytes(content)
        os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
        return found

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("moment", ["make_plan", "make_tokenizer"])
def test_a_table_that_changes_before_it_is_encoded_is_noticed(tmp_path, monkeypatch, moment):
    path, texts = tmp_path / "a.jsonl", [f"row number {i}" for i in range(99)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    changing(monkeypatch, build_text, moment, path, path.read_bytes().replace(b"number", b"NUMBER"))
    with pytest.raises(DatasetError, match=r"a\.jsonl: changed while it was being prepared"):
        prepare("text", [path], out=tmp_path / "out", vocab_size=300, val_one_in=9, quiet=True)
    assert not (tmp_path / "out").exists()


NEW_CONTENTS = {"same size": b"A LINE OF TEXT\n" * 500, "not UTF-8": b"\xff line of text\n" * 500}


@pytest.mark.parametrize("change", NEW_CONTENTS)
@pytest.mark.parametrize("moment", ["make_plan", "run_parts"])
@pytest.mark.parametrize("others", [0, 30], ids=["alone", "one of many"])
def test_a_text_file_that_changes_after_it_was_read_is_noticed(tmp_path, monkeypatch, change, moment, others):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "log.txt"
    for i in range(others):
        (folder / f"{i}.txt").write_text(f"other text {i}\n")
    path.write_bytes((b"a line of text\n" * 500)[: len(NEW_CONTENTS[change])].ljust(len(NEW_CONTENTS[change]), b"."))
    changing(monkeypatch, build_text, moment, path, NEW_CONTENTS[change])
    with pytest.raises(DatasetError, match=r"log\.txt: changed while it was being prepared"):
        prepare("text", [folder], out=tmp_path / "out", tokenizer="byte", quiet=True)
    assert not (tmp_path / "out").exists()


def test_work_of_another_recipe_is_not_continued(tmp_path, monkeypatch):
    """`hf` and `wikitext` may read the same rows with the same options; one of the two joins them."""
    path, marks = tmp_path / "a.jsonl", []
    path.write_text("".join(json.dumps({"text": f"row number {i}"}) + "\n" for i in range(99)))
    source = text_source([path])
    for recipe, join in (("hf", None), ("hf", iter), ("wikitext", iter)):
        staging = Staging(tmp_path / ".out.partial")
        options = {"tokenizer": "byte", "vocab_size": None}
        context = Context(recipe, "out", staging, options, Progress("x", quiet=True))
        build_text.build_text(context, dataclasses.replace(source, join=join))
        marks.append((staging.root / "fingerprint").read_text())
    assert len(set(marks)) == 3

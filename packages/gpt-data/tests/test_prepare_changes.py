"""Input that changes while it is prepared is noticed, at whatever moment it does."""

import json
import os

import pytest

from gpt_data import DatasetError, prepare
from gpt_data.preparation import build_text


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

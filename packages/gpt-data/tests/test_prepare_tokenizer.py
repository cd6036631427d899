"""The tokenizer of a dataset, and tokenizers that are trained without one."""

import gzip
import json

from gpt_data.preparation import train_on_files, vocabulary
from gpt_data.tokenizers import BPETokenizer


def test_a_tokenizer_is_trained_on_a_share_of_much_text(tmp_path, monkeypatch):
    for i in range(40):
        (tmp_path / f"{i:02}.txt").write_text(f"{i:02} " * 100)
    seen = []
    train = BPETokenizer.train
    monkeypatch.setattr(BPETokenizer, "train", lambda t, size: train((seen.append(x) or x for x in t), size))
    monkeypatch.setattr(vocabulary, "TRAIN_BYTES", 3000)
    train_on_files([tmp_path], 260, quiet=True)
    assert [text[:2] for text in seen] == ["00", "04", "08", "12", "16", "20", "24", "28", "32", "36"]


def test_packed_files_count_by_what_is_in_them(tmp_path, monkeypatch):
    rows = "".join(json.dumps({"text": f"{i:03} " * 50}) + "\n" for i in range(100))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    seen = []
    train = BPETokenizer.train
    monkeypatch.setattr(BPETokenizer, "train", lambda t, size: train((seen.append(x) or x for x in t), size))
    monkeypatch.setattr(vocabulary, "TRAIN_BYTES", 5000)
    train_on_files([tmp_path / "rows.jsonl.gz"], 260, quiet=True)
    assert [text[:3] for text in seen] == [f"{i:03}" for i in range(25)]

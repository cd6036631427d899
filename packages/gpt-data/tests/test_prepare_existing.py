"""A dataset that is there is opened if it is what was asked for, and never in place of something else."""

import json
import shutil

import numpy as np
import pytest

from gpt_data import DatasetError, describe_speedrun, prepare
from gpt_data.preparation import train_on_files


@pytest.fixture
def text(tmp_path, monkeypatch):
    """`a.txt` in the working directory."""
    (tmp_path / "a.txt").write_text("the cat sat on the mat with the hat. " * 200)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a.txt"


def rows(path, count=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": f"Row {i} of {path.name}."}) + "\n" for i in range(count)))
    return path


def made(name, paths, **options):
    return prepare(name, paths, **{"tokenizer": "byte", "quiet": True, **options})


def refuses(message, *arguments, **options):
    with pytest.raises(DatasetError, match=message + r".*--out.*--force"):
        made(*arguments, **options)


def test_folders_keep_all_of_their_name_and_files_lose_their_ending(text, tmp_path):
    for name in ("notes.v1", "notes.v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(f"In {name}, " * 50)
    found = [made("text", [name]) for name in ("notes.v1", "notes.v2", "a.txt")]
    assert [info.name for info in found] == ["notes.v1", "notes.v2", "a"]
    for name in ("O/x-v1.1", "O/x-v1.2"):
        rows(tmp_path / name / "train.jsonl")
        assert made("hf", [name], val_one_in=4).name == name[2:]
    with pytest.raises(DatasetError, match="has no name that the dataset could have"):
        made("text", ["/"])


def test_another_recipe_is_not_opened(text, tmp_path):
    info = made("text", [text], out="here", tokenizer="char")
    refuses("was prepared with recipe = 'text', not 'stdlib'", "stdlib", [], out="here", tokenizer="char")
    assert made("text", [text], out="here", tokenizer=None) == info


def test_tokens_that_were_described_in_place_are_not_opened_as_texts(text, tmp_path):
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 4
    for name in ("x_val_0.bin", "x_train_0.bin"):
        (tmp_path / name).write_bytes(header.tobytes() + np.array([50256, 1, 2, 3], "<u2").tobytes())
    describe_speedrun(tmp_path)
    refuses("recipe = 'speedrun', not 'text'", "text", [text], out=tmp_path, tokenizer=None)


def test_other_texts_are_not_opened(text, tmp_path):
    (tmp_path / "b.txt").write_text("another text " * 50)
    info = made("text", ["a.txt"], out="here")
    assert made("text", [text], out="here") == info
    refuses("source = 'text: a.txt', not 'text: b.txt'", "text", ["b.txt"], out="here")
    made("shakespeare_char", ["a.txt"])
    refuses("source = 'text: a.txt', not 'text: b.txt'", "shakespeare_char", ["b.txt"])
    assert prepare("shakespeare_char", quiet=True).source["description"] == "text: a.txt"


def test_other_datasets_of_the_hub_are_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows(tmp_path / "O" / "x" / "train.jsonl")
    rows(tmp_path / "r.jsonl")
    rows(tmp_path / "s.jsonl")
    info = made("hf", ["O/x"], val_one_in=4, out="here")
    assert info.source["description"] == "x" and made("hf", [tmp_path / "O" / "x"], out="here") == info
    refuses("source = 'x', not 'P/y'", "hf", ["P/y"], out="here")
    info = made("openwebtext", ["r.jsonl"], val_one_in=4)
    assert info.source["description"] == "copies of Skylion007/openwebtext: r.jsonl"
    assert made("openwebtext", ["r.jsonl"]) == made("openwebtext", []) == info
    refuses(r"source = 'copies of .*r\.jsonl', not 'copies of .*s\.jsonl'", "openwebtext", ["s.jsonl"])


def test_a_tokenizer_is_what_its_files_are(text, tmp_path):
    train_on_files([text], 270, quiet=True).save(tmp_path / "tok")
    info = made("text", [text], out="here", tokenizer="./tok/")
    assert info.options["tokenizer"] == "tok"
    shutil.copytree("tok", "copy")
    for same in ("tok", "./tok/", str(tmp_path / "tok"), "copy", None):
        assert made("text", [text], out="here", tokenizer=same) == info
    shutil.rmtree("tok")
    train_on_files([text], 265, quiet=True).save(tmp_path / "tok")
    refuses("tokenizer = 'tok with other files', not 'tok'", "text", [text], out="here", tokenizer="tok")
    refuses("tokenizer = 'tok', not 'byte'", "text", [text], out="here")


def test_what_is_the_default_may_be_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = made("text", [rows(tmp_path / "r.jsonl", 400)])
    assert made("text", ["r.jsonl"], val_one_in=20) == info
    refuses("val_one_in = 20, not 5", "text", ["r.jsonl"], val_one_in=5)
    info = made("text", ["r.jsonl"], val_one_in=5, out="five")
    refuses("val_one_in = 5, not 20", "text", ["r.jsonl"], val_one_in=20, out="five")

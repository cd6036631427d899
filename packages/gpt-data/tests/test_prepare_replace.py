"""What `force` may replace: a dataset that `prepare` wrote, and nothing else."""

import json

import numpy as np
import pytest

from gpt_data import DatasetError, describe_speedrun, prepare


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("A line of some text, and then another.\n" * 50)
    return path


def shards(folder):
    """A folder of speedrun shards, which a user downloaded."""
    folder.mkdir()
    ids = np.array([50256, 15496, 995, 11] * 25, "<u2")
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, len(ids)
    for name in ("fineweb_val_000000.bin", "fineweb_train_000001.bin"):
        (folder / name).write_bytes(header.tobytes() + ids.tobytes())
    return folder


def test_a_file_is_never_replaced_by_a_folder(text, tmp_path):
    (tmp_path / "notes").write_text("years of work")
    with pytest.raises(DatasetError, match="notes: is a file, so it is not replaced"):
        prepare("text", [text], tokenizer="byte", out=tmp_path / "notes", force=True)
    assert (tmp_path / "notes").read_text() == "years of work"


@pytest.mark.parametrize("described", [False, True])
def test_shards_of_another_program_are_never_replaced(text, tmp_path, described):
    folder = shards(tmp_path / "fw")
    if described:
        describe_speedrun(folder)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(DatasetError, match=r"which `prepare` did not write, so it is not replaced.*--out"):
        prepare("text", [text], tokenizer="byte", out=folder, force=True)
    assert {path.name for path in folder.iterdir()} == before


def test_copies_of_such_shards_are_replaced(text, tmp_path):
    out = tmp_path / "out"
    prepare("fineweb10B", [shards(tmp_path / "fw")], chunks=1, out=out, quiet=True)
    assert prepare("text", [text], tokenizer="byte", out=out, force=True).tokenizer == "byte"
    assert len(list((tmp_path / "fw").glob("*.bin"))) == 2


@pytest.mark.parametrize("description", ["", "[]", json.dumps({"source": {}}), None])
def test_a_dataset_with_a_damaged_description_is_replaced(text, tmp_path, description):
    first = prepare("text", [text], tokenizer="byte", out=tmp_path / "out")
    if description is None:
        (first.path / "dataset.json").unlink()
    else:
        (first.path / "dataset.json").write_text(description)
    assert prepare("text", [text], tokenizer="byte", out=first.path, force=True).digest == first.digest


def test_an_empty_folder_is_replaced(text, tmp_path):
    (tmp_path / "out").mkdir()
    assert prepare("text", [text], tokenizer="byte", out=tmp_path / "out", force=True).vocab_size == 260

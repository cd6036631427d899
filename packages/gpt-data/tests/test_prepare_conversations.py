"""Conversations of one's own: files and folders, a split by hash that always has two sides, clear errors."""

import itertools
import json

import pytest

from gpt_data import DatasetError, open_dataset, prepare
from gpt_data.chat import add_special_tokens, render
from gpt_data.tokenizers import ByteTokenizer


def talk(i, **more):
    said = [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer é {i}."}]
    return {"messages": said, **more}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(tmp_path, *paths, **options):
    return prepare("chat", paths, tokenizer="byte", out=tmp_path / "made", quiet=True, **options)


def said(info, split):
    """The conversations of a split, as ids."""
    ids = info.stream(split).read(0, info.splits[split].tokens).tolist()
    starts = [i for i, token in enumerate(ids) if token == info.boundary.id] + [len(ids)]
    return {tuple(ids[a:b]) for a, b in itertools.pairwise(starts)}


@pytest.mark.parametrize("template", ["chatml", "roles"])
def test_every_conversation_is_on_one_side_with_its_mask(tmp_path, template):
    rows = [talk(i) for i in range(60)]
    write(tmp_path / "mine/a.jsonl", rows[:50])
    write(tmp_path / "mine/more/b.jsonl", [*rows[50:], *rows[:5], {"messages": [{"role": "user", "content": "?"}]}])
    (tmp_path / "mine/notes.txt").write_text("not a conversation")
    info = make(tmp_path, tmp_path / "mine", template=template, val_one_in=10)
    tokenizer = add_special_tokens(ByteTokenizer(), template)
    train, val = said(info, "train"), said(info, "val")
    assert train | val == {tuple(render(row, tokenizer).ids.tolist()) for row in rows}
    assert not train & val, "a conversation that is there twice is on one side"
    assert 0 < len(val) < 15
    counted = sum(int(info.mask_stream(side).read(0, info.splits[side].tokens).sum()) for side in ("train", "val"))
    assert counted == sum(render(row, tokenizer).targets for row in [*rows, *rows[:5]])
    assert info.source["left_out"] == {"malformed": 1}
    assert open_dataset(info.path).load_tokenizer().template == template


@pytest.mark.parametrize("count", [2, 3, 8])
def test_a_handful_has_a_conversation_to_validate_on(tmp_path, count):
    info = make(tmp_path, write(tmp_path / "few.jsonl", [talk(i, note=i) for i in range(count)]))
    assert (len(said(info, "train")), len(said(info, "val"))) == (count - 1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([talk(0)], "1 conversations, expected at least two"),
        ([talk(0)] * 3, "all 3 conversations are the same one"),
        ([{"text": "a"}, {"text": "b"}], "none of 1 rows is a conversation"),
        (None, "no conversations. Give .jsonl or .parquet files"),
    ],
)
def test_what_cannot_be_trained_on_is_said(tmp_path, rows, message):
    path = tmp_path / "notes.txt" if rows is None else write(tmp_path / "few.jsonl", rows)
    path.touch()
    with pytest.raises(DatasetError, match=message):
        make(tmp_path, path)

"""Cutting texts into pieces and shards loses nothing and changes no token."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError
from gpt_data.preparation.documents import Document, byte_offset, pieces, scan
from gpt_data.preparation.plan import make_plan
from gpt_data.tokenizers.bpe import SPLIT_PATTERN
from gpt_data.tokenizers.gpt2 import GPT2_PATTERN

# Everything that the patterns treat differently, so that short texts meet every rule.
CODE_LIKE = st.text(st.sampled_from(list("aB1.,'s \t\n\r}(é東\u00a0\u2028🦊_")), max_size=80)


@given(text=CODE_LIKE, size=st.integers(1, 20))
@pytest.mark.parametrize("pattern", [GPT2_PATTERN, SPLIT_PATTERN], ids=["gpt2", "trained"])
def test_no_tokenizer_notices_a_cut(text, size, pattern):
    """BPE merges inside of the pieces that its pattern finds: equal pieces are equal ids."""
    import regex

    document = Document("t", text=text)
    found = list(pieces(document, 0, len(text.encode()), size))
    assert "".join(piece.read() for piece in found) == text
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]
    cut_pieces = [part for piece in found for part in regex.findall(pattern, piece.read())]
    assert cut_pieces == regex.findall(pattern, text)


def test_long_texts_are_really_cut():
    text = "a line of text,\nand another one\n\n    indented\n" * 100
    found = list(pieces(Document("t", text=text), 0, len(text), size=500))
    assert len(found) > 7 and max(piece.bytes for piece in found) < 600


def test_a_file_is_cut_like_a_string(tmp_path):
    text = "first é line\nsecond\n\nthird 🦊\n" * 5000
    path = tmp_path / "t.txt"
    path.write_bytes(text.encode())
    size = len(text.encode())
    as_file, as_string = (list(pieces(d, 3, size, 40_000)) for d in (Document("t", path), Document("t", text=text)))
    assert [(p.start, p.end, p.last) for p in as_file] == [(p.start, p.end, p.last) for p in as_string]
    assert "".join(p.read() for p in as_file) == text[3:]
    assert len(as_file) == 5


@given(text=st.text(st.sampled_from("aé東🦊\n"), max_size=50))
def test_byte_offset_counts_characters(text):
    for count in range(len(text)):
        assert byte_offset(Document("t", text=text), count) == len(text[:count].encode())
    assert byte_offset(Document("t", text=text), len(text)) == len(text.encode())


def test_scan_measures(tmp_path):
    path = tmp_path / "t"
    content = "é東x".encode() * 400_000  # several blocks, cut within characters
    path.write_bytes(content)
    found = scan(Document("t", path))
    assert (found.bytes, found.chars, found.is_text) == (len(content), 1_200_000, True)
    assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"\xff", b"abc\xc3", b"a\0b", "é".encode("latin-1")])
def test_scan_tells_what_is_not_text(tmp_path, content):
    path = tmp_path / "t"
    path.write_bytes(content)
    assert not scan(Document("t", path)).is_text


@settings(max_examples=50)
@given(
    texts=st.lists(st.text("ab\n.", min_size=1, max_size=30), min_size=2, max_size=40, unique=True),
    size=st.integers(1, 99),
)
def test_a_plan_holds_every_document_once_and_no_split_is_empty(texts, size):
    plan = make_plan([scan(Document(str(i), text=text)) for i, text in enumerate(texts)], size)
    whole = {}
    for shard in plan.shards:
        assert shard.pieces and (len(shard.pieces) == 1 or shard.bytes <= size)
        for piece in shard.pieces:
            whole[shard.split, piece.document.key] = whole.get((shard.split, piece.document.key), "") + piece.read()
    assert sorted(int(key) for _, key in whole) == list(range(len(texts)))
    assert all(text == texts[int(key)] for (_, key), text in whole.items())
    assert {split for split, _ in whole} == {"train", "val"}
    assert plan.bytes() == sum(len(t) for t in texts) and plan.separate


def test_a_document_stays_in_its_split_when_others_come_and_go():
    scans = [scan(Document(str(i), text=f"text number {i}")) for i in range(400)]

    def held_out(plan):
        return {piece.document.key for piece in plan.pieces("val")}

    everything, half = held_out(make_plan(scans)), held_out(make_plan(scans[::2]))
    assert half == {key for key in everything if int(key) % 2 == 0}
    assert 5 <= len(everything) <= 40  # about one in 20


def test_one_text_gives_its_last_tenth():
    text = "é" * 95 + "0123456789"
    plan = make_plan([scan(Document("t", text=text))])
    assert "".join(plan.texts("train")) == text[:94] and "".join(plan.texts("val")) == text[94:]
    assert not plan.separate
    with pytest.raises(DatasetError, match="1 characters are too few to hold out a tenth"):
        make_plan([scan(Document("t", text="a"))])

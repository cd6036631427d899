"""Cutting texts into pieces and shards loses nothing and changes no token."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError
from gpt_data.preparation import documents
from gpt_data.preparation.documents import Document, byte_offset, pieces, scan
from gpt_data.preparation.plan import make_plan
from gpt_data.tokenizers import BPETokenizer
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


# Words of several scripts, numbers, marks, and what comes between them.
PARTS = ["жщ", "東字", "कि", "لأ", "ñ", "²", "ⅷ", "٣", "1234", "it's", "'ll", "e\u0301", "🦊", "_", "-", "don't"]
BETWEEN = [
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n",
    "\n \n\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\x85",
    "\x1f",
]
MARKS = [".", ", ", ".\n\n", ".\r\n", "!", "。", "、", "」\n", "「", ";\n", "' ", ":\t", "?\n\n\n"]
TEXTS = st.lists(st.sampled_from([*PARTS, *BETWEEN, *MARKS]), min_size=9, max_size=30).map("".join)


@pytest.mark.parametrize("pattern", [GPT2_PATTERN, SPLIT_PATTERN], ids=["gpt2", "trained"])
def test_no_script_notices_a_cut(pattern, monkeypatch):
    """The ids themselves, from a vocabulary that joins any two bytes: what a pattern does not part is joined."""
    singles = sorted(set("".join([*PARTS, *BETWEEN, *MARKS]).encode()))
    tokens = [bytes([i]) for i in range(256)] + [bytes([a, b]) for a in singles for b in singles]
    tokens += [b"\r\n\r\n", b"\n\n\n\n", b"    ", b"\n\n\n", b"   "]
    tokenizer = BPETokenizer("pairs", {token: rank for rank, token in enumerate(tokens)}, pattern)
    monkeypatch.setattr(documents, "NEARBY_BYTES", 1)
    cuts = 0

    @settings(max_examples=300, deadline=None)
    @given(text=TEXTS, size=st.integers(1, 8))
    def check(text, size):
        nonlocal cuts
        found = list(pieces(Document("t", text=text), 0, len(text.encode()), size))
        cuts += len(found) - 1
        assert [i for piece in found for i in tokenizer.encode(piece.read())] == tokenizer.encode(text)

    check()
    assert cuts > 300


ORDINARY = {
    "cyrillic lines": "Строка текста на русском языке\nи ещё одна такая же строка\n",
    "cyrillic paragraphs": "Абзац, в котором есть запятая.\n\nДругой абзац; тоже короткий!\n\n\n",
    "english paragraphs": '"A paragraph of one line," she said.\n\n"And another."\n\n',
    "windows": "A line of text.\r\n\tAnother one.\r\n\r\n",
    "chinese": "第一行，没有空格。\n\n第二行，也没有。\n\n",
    "japanese": "　吾輩は猫である。名前はまだ無い。\n\n　どこで生れたか、とんと見当がつかぬ。\n\n",
    "devanagari": "यह एक वाक्य है।\n\nयह दूसरा वाक्य है।\n\n",
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_texts_of_any_script_are_cut(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(documents, "NEARBY_BYTES", 1000)
    content = (ORDINARY[kind] * (1 + 600_000 // len(ORDINARY[kind]))).encode()
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    found = list(pieces(Document("t", path), 0, len(content), size=50_000))
    assert "".join(piece.read() for piece in found) == content.decode()
    assert max(piece.bytes for piece in found) < 50_000 + 1000 + 300


def test_a_line_break_nearby_comes_before_the_end_of_a_word(monkeypatch):
    monkeypatch.setattr(documents, "NEARBY_BYTES", 4000)
    text = "a word " * 500 + "\nthe last word of a line\nanother line, " + "and words " * 500
    found = list(pieces(Document("t", text=text), 0, len(text), size=100))
    assert found[0].end == text.index("another") and found[1].bytes < 120


def test_a_text_that_cannot_be_cut_is_refused_if_it_is_large(monkeypatch, tmp_path):
    monkeypatch.setattr(documents, "LARGEST_PIECE_BYTES", 3 << 20)
    path = tmp_path / "t.txt"
    path.write_bytes(b"x" * (3 << 20))
    assert len(list(pieces(Document("t", path), 0, 3 << 20))) == 1
    path.write_bytes(b"x" * ((3 << 20) + 1))
    with pytest.raises(DatasetError, match=r"t\.txt: no word ends in 3 MB after byte 0,"):
        list(pieces(Document("t", path), 0, (3 << 20) + 1))


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

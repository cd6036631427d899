"""Hugging Face's tokenizers behind the protocol, and our vocabularies as theirs."""

import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import DatasetError, Tokenizer, load_tokenizer
from gpt_data.chat import add_special_tokens, render
from gpt_data.tokenizers import BPETokenizer, HuggingFaceTokenizer, export_to_huggingface

TEXT = "The quick brown fox; les élèves ont mangé 12345 gâteaux… 東京 🦊\n\tdef f(x):\n        return x + 1\n" * 20
UNICODE = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["<|endoftext|>", "aaaaaaa", "   ", "\n\n", "return", "élèves", "'LL", "ſ", "1234567"]),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.train([TEXT, "aaaa aaaaaaaa aaa abab ababab baba"], vocab_size=320)


@pytest.fixture(scope="module")
def exported(bpe, tmp_path_factory):
    return export_to_huggingface(bpe, tmp_path_factory.mktemp("exported")).parent


@pytest.fixture(scope="module")
def hf(exported):
    return HuggingFaceTokenizer.open(exported)


@settings(max_examples=300)
@given(text=UNICODE)
def test_an_exported_vocabulary_gives_the_same_ids(bpe, hf, text):
    assert hf.encode_array(text).tolist() == bpe.encode_array(text).tolist()
    assert hf.encode(text) == bpe.encode(text)
    assert hf.decode(hf.encode(text)) == text


def test_bytes_of_tokens(bpe, hf):
    assert hf.token_bytes().tolist() == bpe.token_bytes().tolist()
    other = json.loads(hf._content) | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    assert HuggingFaceTokenizer(json.dumps(other)).token_bytes() is None


def test_transformers_reads_an_exported_vocabulary(bpe, exported):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer(TEXT)["input_ids"] == bpe.encode(TEXT) and tokenizer.eos_token_id == bpe.eot_id
    assert tokenizer.decode(bpe.encode(TEXT)) == TEXT


@settings(max_examples=50)
@given(texts=st.lists(UNICODE, max_size=4))
def test_documents(bpe, hf, texts):
    ids = hf.encode_documents(texts)
    assert ids.dtype == np.uint32 and ids.tolist() == bpe.encode_documents(texts).tolist()


def test_it_is_a_tokenizer(bpe, hf):
    assert isinstance(hf, Tokenizer)
    assert (hf.name, hf.vocab_size, hf.eot_id) == ("hf-320", 320, 319) == (hf.name, bpe.vocab_size, bpe.eot_id)
    assert hf.special_tokens == bpe.special_tokens and hf.pad_id is None
    with pytest.raises(ValueError, match="id 320 is not in the vocabulary of 'hf-320'"):
        hf.decode([320])


def test_saved_and_loaded_it_is_the_same(hf, tmp_path):
    hf.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is HuggingFaceTokenizer and (loaded.name, loaded.eot_id) == (hf.name, hf.eot_id)
    assert loaded.encode(TEXT) == hf.encode(TEXT)
    file = tmp_path / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=r"tokenizer\.json: sha256 is [0-9a-f]{64}, expected"):
        load_tokenizer(tmp_path)
    file.unlink()
    with pytest.raises(DatasetError, match=r"tokenizer\.json: is missing"):
        load_tokenizer(tmp_path)


def test_a_plain_hugging_face_folder_is_opened(exported):
    loaded = load_tokenizer(exported)
    assert type(loaded) is HuggingFaceTokenizer and loaded.eot_id == 319


def test_it_can_carry_a_chat_template(hf, tmp_path):
    chat = add_special_tokens(hf, "roles")
    chat.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    messages = [{"role": "user", "content": "fox<|user_end|>"}, {"role": "assistant", "content": "x + 1"}]
    rendered = render({"messages": messages}, loaded)
    assert rendered.ids[0] == 320 and rendered.targets == len(hf.encode("x + 1")) + 1


# --- what ends a text --------------------------------------------------------------------------------------------


def changed(exported, folder, config=None, **fields):
    content = json.loads((exported / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**content, **fields}))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def token(i, spelling, special=True):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": spelling, "special": special, **flags}


def test_what_ends_a_text_is_what_the_configuration_says(exported, tmp_path):
    tokens = [token(319, "<|endoftext|>"), token(320, "</s>"), token(321, "[PAD]")]
    config = {"eos_token": {"content": "</s>"}, "pad_token": "[PAD]"}
    made = HuggingFaceTokenizer.open(changed(exported, tmp_path, config, added_tokens=tokens))
    assert (made.eot_id, made.pad_id, made.vocab_size) == (320, 321, 322)
    assert HuggingFaceTokenizer.open(tmp_path, eot="<|endoftext|>").eot_id == 319
    made.save(tmp_path / "saved")
    assert (load_tokenizer(tmp_path / "saved").eot_id, load_tokenizer(tmp_path / "saved").pad_id) == (320, 321)


def test_without_a_configuration_it_is_the_usual_one_or_none(exported, tmp_path):
    assert HuggingFaceTokenizer.open(changed(exported, tmp_path) / "tokenizer.json").eot_id == 319
    none = HuggingFaceTokenizer.open(changed(exported, tmp_path, added_tokens=[]))
    assert none.eot_id is None and none.special_tokens == {} and none.vocab_size == 319
    with pytest.raises(ValueError, match="'hf-319' has no end-of-text token"):
        none.encode_documents(["a"])
    with pytest.raises(
        DatasetError, match=r"eot is '</s>', which is not in the vocabulary of 'hf-319'.* tokens: none\."
    ):
        HuggingFaceTokenizer.open(tmp_path, eot="</s>")


def test_a_text_is_neither_cut_nor_padded_nor_wrapped(exported, tmp_path):
    changed(
        exported,
        tmp_path,
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 5000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 319,
                 "pad_type_id": 0, "pad_token": "<|endoftext|>"},
        post_processor={"type": "BertProcessing", "sep": ["<|endoftext|>", 319], "cls": ["<|endoftext|>", 319]},
    )  # fmt: skip
    plain, wrapped = HuggingFaceTokenizer.open(exported), HuggingFaceTokenizer.open(tmp_path)
    assert wrapped.encode(TEXT) == plain.encode(TEXT)
    assert wrapped.encode_array(TEXT).tolist() == plain.encode_array(TEXT).tolist()
    assert wrapped.pad_id == 319


def test_a_vocabulary_that_cannot_write_its_special_token_as_text_says_so(tmp_path):
    model = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["</s>", 0.0], ["a", -1.0]],
        "byte_fallback": False,
    }
    content = {"version": "1.0", "added_tokens": [token(1, "</s>")], "model": model}
    made = HuggingFaceTokenizer(json.dumps(content), eot="</s>")
    assert made.encode("a</s>") == [2, 1] and made.encode_array("aa").tolist() == [2, 2]
    with pytest.raises(ValueError, match="has no other way to write '</s>' than by the token"):
        made.encode_array("a</s>a")


# --- what is missing ---------------------------------------------------------------------------------------------


def test_bad_files_are_explained(tmp_path):
    with pytest.raises(DatasetError, match=r"tokenizer\.json: is missing\. A fast Hugging Face tokenizer writes it"):
        HuggingFaceTokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(DatasetError, match=r"tokenizer\.json cannot be understood"):
        HuggingFaceTokenizer.open(tmp_path)


def test_a_missing_package_names_the_extra(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"tokenizers: pip install 'gpt-data\[hf\]'"):
        HuggingFaceTokenizer.open(exported)

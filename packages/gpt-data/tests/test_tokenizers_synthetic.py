"""The vocabularies of arithmetic and of equations modulo a prime; and the evaluation of tokenizers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt_data import Tokenizer, load_tokenizer
from gpt_data.tokenizers import (
    ArithmeticTokenizer,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GrokkingTokenizer,
    evaluate_tokenizer,
    tokenizer_table,
)
from gpt_data.tokenizers.arithmetic import ALPHABET
from gpt_data.tokenizers.grokking import OPERATIONS

# --- arithmetic --------------------------------------------------------------------------------------------------


def test_arithmetic_symbols():
    """spec/core §2.7 and §9.15."""
    tokenizer = ArithmeticTokenizer()
    assert isinstance(tokenizer, Tokenizer) and tokenizer.vocab_size == 32
    assert tokenizer.encode("0123456789$_|=*") == [*range(14), 20]
    assert (tokenizer.eot_id, tokenizer.pad_id, tokenizer.special_tokens) == (12, 11, {"$": 10, "_": 11, "|": 12})
    assert tokenizer.decode(list(range(32))) == ALPHABET


@given(text=st.text(st.sampled_from(sorted(set(ALPHABET) - set("$_|"))), max_size=30))
def test_arithmetic_texts_survive(text):
    tokenizer = ArithmeticTokenizer()
    ids = tokenizer.encode_array(text).tolist()
    assert tokenizer.decode(ids) == text and not set(ids) & {10, 11, 12}
    assert tokenizer.encode_documents([text, "1"]).tolist() == [*ids, 12, 1, 12]


def test_what_is_no_arithmetic_is_explained():
    tokenizer = ArithmeticTokenizer()
    with pytest.raises(ValueError, match=r"character 'x' \(U\+0078\) is not in this vocabulary"):
        tokenizer.encode("2x")
    with pytest.raises(ValueError, match=r"'\|' is a special token of this vocabulary and no part of a text: '1=1\|'"):
        tokenizer.encode_array("1=1|")
    with pytest.raises(ValueError, match="id 32 is not in the vocabulary"):
        tokenizer.decode([32])


# --- grokking ----------------------------------------------------------------------------------------------------


def test_grokking_ids():
    """spec/core §2.3: eos 0, '=' 1, sorted operations 2 to 10, numbers from 11 on."""
    tokenizer = GrokkingTokenizer(97)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == 108 and GrokkingTokenizer(223).vocab_size == 234
    assert list(OPERATIONS) == sorted(OPERATIONS) and len(OPERATIONS) == 9
    assert tokenizer.encode("<|eos|> 0 x/y 1 = 0") == [0, 11, 5, 12, 1, 11]
    assert tokenizer.encode(" ".join(OPERATIONS)) == list(range(2, 11)) and tokenizer.encode("96") == [107]
    assert tokenizer.decode([0, 11, 5, 12, 1, 11]) == "<|eos|> 0 x/y 1 = 0"
    assert tokenizer.encode_documents(["1", "2 ="]).tolist() == [12, 0, 13, 1, 0]


def test_what_is_no_equation_is_explained():
    tokenizer = GrokkingTokenizer(5)
    with pytest.raises(
        ValueError, match=r"'5' is not in this vocabulary, which has .* numbers 0 to 4 .* x\+y, .*spaces"
    ):
        tokenizer.encode("3 x+y 5")
    with pytest.raises(ValueError, match="is the end of a text and no part of one"):
        tokenizer.encode_array("<|eos|> 3")
    with pytest.raises(ValueError, match="id 16 is not in the vocabulary of 'grokking-5'"):
        tokenizer.decode([16])


@pytest.mark.parametrize("prime", [1, 0, -3, 4, 9, 91, 2.0])
def test_only_primes(prime):
    with pytest.raises(ValueError, match=rf"prime is {prime}, expected a prime number"):
        GrokkingTokenizer(prime)


@pytest.mark.parametrize(
    "tokenizer", [ArithmeticTokenizer(), GrokkingTokenizer(7)], ids=lambda tokenizer: tokenizer.name
)
def test_saved_and_loaded_they_are_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer) and loaded.name == tokenizer.name
    everything = list(range(tokenizer.vocab_size))
    assert loaded.vocab_size == tokenizer.vocab_size and loaded.decode(everything) == tokenizer.decode(everything)


# --- evaluation --------------------------------------------------------------------------------------------------


class Lossy(ByteTokenizer):
    name = "lossy"

    def decode(self, ids):
        return super().decode(ids).lower()


def test_bytes_per_token_are_counted_exactly():
    texts = ["Aé" * 10, "", "b" * 10]
    char, byte = evaluate_tokenizer(CharTokenizer.train(texts), texts), evaluate_tokenizer(ByteTokenizer(), iter(texts))
    assert (char.texts, char.tokens, char.bytes, char.vocab_size) == (3, 30, 40, 3)
    assert char.bytes_per_token == pytest.approx(4 / 3) and byte.bytes_per_token == 1 and byte.tokens == 40
    assert char.round_trip and byte.round_trip and byte.seconds > 0 and byte.mb_per_second > 0
    lossy = evaluate_tokenizer(Lossy(), texts)
    assert not lossy.round_trip and lossy.lossy == 1
    assert evaluate_tokenizer(ByteTokenizer(), []).bytes_per_token == 0


def test_the_table_has_the_best_first():
    texts = ["some words, some more words\n" * 50]
    reports = [evaluate_tokenizer(t, texts) for t in (Lossy(), ByteTokenizer(), BPETokenizer.train(texts, 300))]
    header, best, *others = tokenizer_table([*reports, evaluate_tokenizer(Lossy(), ["A", "b"])]).splitlines()
    assert header.split() == ["tokenizer", "vocabulary", "tokens", "bytes/token", "round", "trip", "MB/s"]
    assert best.startswith("bpe-") and " yes " in best and len(others) == 3
    assert any("1 of 2 differ" in line for line in others)
    assert len({len(line) for line in (header, best, *others)}) == 1

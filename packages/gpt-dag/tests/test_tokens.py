"""The word tokenizer: what it drops, what it refuses and where, and the way back."""

import pytest

from gpt_dag import ParseError, WordTokenizer
from gpt_dag.tokens import ID, VOCABULARY
from gpt_data.tokenizers import Tokenizer

tokenizer = WordTokenizer()


def test_it_is_a_tokenizer_of_70_ids_with_padding_first():
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.vocab_size == len(set(VOCABULARY)) == 70
    assert (tokenizer.pad_id, tokenizer.special_tokens["<|pad|>"]) == (0, 0)


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("five point two", "five point two"),
        ("One Thousand, six hundred AND four", "one thousand six hundred and four"),
        ("1,604.45-3", "1604.45 - 3"),
        ("fifty eight -fifty-eight", "fifty-eight - fifty-eight"),
        ("-5 - -46.4% * ( -3 )", "-5 - -46.4% * ( -3 )"),
        ("2×3 ÷ 4 − 1", "2 * 3 / 4 - 1"),
        ("five = 5", "five = 5"),
        ("open parenthesis 2 close parenthesis", "open parenthesis 2 close parenthesis"),
        ("", ""),
    ],
)
def test_text_comes_back_in_one_spelling(text, again):
    ids = tokenizer.encode(text)
    assert tokenizer.decode([*ids, 0, 0]) == again
    assert tokenizer.encode(again) == ids


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("two million", 4, "unknown word 'million'"),
        ("2 $ 3", 2, "unknown character"),
        ("5.", 1, "digits on both sides"),
        (".5", 0, "digits on both sides"),
        ("1,60", 1, "every three digits"),
        ("1234,567", 4, "every three digits"),
        ("five, six", 4, "comma stands only inside"),
        ("1, 2", 1, "comma stands only inside"),
        ("one thousand, plus two", 12, "comma stands only inside"),
        ("two thousand, minus three", 12, "comma stands only inside"),
        ("two thousand, percent", 12, "comma stands only inside"),
        ("two thousand, point five", 12, "comma stands only inside"),
        ("0,500", 1, "every three digits"),
        ("twenty- five", 6, "hyphen joins tens and units only"),
        ("2 3", 2, "expected an operator between two numbers"),
        ("one-two", 3, "hyphen joins tens and units only"),
        ("fifty-point", 5, "hyphen joins tens and units only"),
        ("five plus\x00six", 9, "unknown character"),
        ("٣ + 1", 0, "unknown character"),
        ("1 + " + "9" * 5000, 4, "more than 1000 digits"),
    ],
)
def test_text_without_ids_is_refused_at_its_place(text, position, problem):
    with pytest.raises(ParseError, match=problem) as error:
        tokenizer.encode(text)
    assert error.value.position == position


def test_offsets_are_the_characters_of_the_text():
    text = "  Fifty-eight + 1,604.5%"
    ids, spans = tokenizer.encode_with_offsets(text)
    assert [text[start:end].lower() for start, end in spans] == [VOCABULARY[i] for i in ids]
    assert len(ids) == 10


def test_special_tokens_are_read_by_encode_alone():
    assert tokenizer.encode("2<|endoftext|>3") == [ID["2"], tokenizer.eot_id, ID["3"]]
    assert tokenizer.encode_documents(["2", "3"]).tolist() == [ID["2"], tokenizer.eot_id, ID["3"], tokenizer.eot_id]
    with pytest.raises(ParseError):
        tokenizer.encode_array("2<|endoftext|>3")


def test_ids_of_no_token_are_refused():
    with pytest.raises(ValueError, match="id 70 is not in the vocabulary"):
        tokenizer.decode([5, 70])

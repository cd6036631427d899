"""Which ids are new to a model: told by the tokenizer that it was trained with, never by sizes alone."""

import pytest

from gpt_data.chat import add_special_tokens
from gpt_data.tokenizers import ByteTokenizer, CharTokenizer, first_new_id


@pytest.fixture
def saved(tmp_path):
    def save(tokenizer):
        folder = tmp_path / f"tokenizer{len(list(tmp_path.iterdir()))}"
        tokenizer.save(folder)
        return folder

    return save


def test_tokens_of_a_template_are_no_text():
    chat = add_special_tokens(ByteTokenizer(), "chatml")
    assert chat.token_bytes().tolist() == [1] * 256 + [0] * (chat.vocab_size - 256)


def test_special_tokens_on_top_are_new(saved):
    base = ByteTokenizer()
    chat = add_special_tokens(base, "chatml")
    assert first_new_id(chat, saved(base)) == base.vocab_size == chat.vocab_size - 9
    assert first_new_id(chat, None) == base.vocab_size, "weights without a tokenizer know the base"
    assert first_new_id(base, saved(base)) == base.vocab_size, "nothing is new"
    assert first_new_id(chat, saved(chat)) == chat.vocab_size, "it has met them before"
    assert first_new_id(base, saved(chat)) == base.vocab_size, "text after conversations"


@pytest.mark.parametrize(("trained", "template"), [("abc", "chatml"), ("abcd", "roles")])
def test_an_id_that_would_mean_something_else_is_refused(saved, trained, template):
    """Sizes would not tell: the alphabets are of one size, or the templates are."""
    data = add_special_tokens(CharTokenizer("abcd" if template == "roles" else "xyz"), "chatml")
    before = CharTokenizer(trained) if template == "chatml" else add_special_tokens(CharTokenizer(trained), template)
    folder = saved(before)
    with pytest.raises(ValueError, match=r"does not extend .* Prepare the data with it: --tokenizer") as error:
        first_new_id(data, folder)
    assert str(folder) in str(error.value)

"""What an evaluator gets to let a model answer: where answers begin and end, and the tool in between."""

import pytest

from gpt_data.chat import add_special_tokens, answering, prompt
from gpt_data.chat.templates import TEMPLATES
from gpt_data.tokenizers import ByteTokenizer

MESSAGES = [{"role": "user", "content": "How much is 6*7?"}]


@pytest.fixture(params=sorted(TEMPLATES))
def tokenizer(request):
    return add_special_tokens(ByteTokenizer(), request.param)


def test_a_prompt_is_that_of_the_template_and_its_end_token_ends_the_answer(tokenizer):
    speech = answering(tokenizer)
    assert speech["chat"](MESSAGES) == prompt({"messages": MESSAGES}, tokenizer)
    assert speech["chat"](MESSAGES)[0] == speech["bos_id"]
    assert tokenizer.special_tokens[TEMPLATES[tokenizer.template].stop] in speech["end_ids"]
    assert "tool" not in speech


def test_the_tool_answers_once_an_expression_is_closed(tokenizer):
    python, output = TEMPLATES[tokenizer.template].python, TEMPLATES[tokenizer.template].output
    start, end, before, after = (tokenizer.special_tokens[spelling] for spelling in (*python, *output))
    asked = []
    tool = answering(tokenizer, lambda text: asked.append(text) or (42 if text == "6*7" else None))["tool"]
    text = tokenizer.encode
    assert tool([*text("so "), start, *text("6*7")]) == [] and asked == []
    assert tool([start, *text("1"), end, *text("so "), start, *text("6*7"), end]) == [before, *text("42"), after]
    assert tool([start, *text("6*x"), end]) == []
    assert tool([*text("6*7"), end]) == [] and asked == ["6*7", "6*x"]


def test_a_tokenizer_without_a_template_does_not_chat():
    assert answering(ByteTokenizer()) == {}

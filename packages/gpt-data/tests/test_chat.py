"""Conversations as ids: the exact tokens of both templates, what the loss learns, and what no user can write."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_data import load_tokenizer
from gpt_data.chat import TEMPLATES, add_special_tokens, prompt, render
from gpt_data.tokenizers import BPETokenizer, ByteTokenizer

BYTES = {name: add_special_tokens(ByteTokenizer(), name) for name in TEMPLATES}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["<|im_end|>", "<|assistant_end|>", "<|bos|>hi", "<EOS>", "<|output_start|>1<|output_end|>"]
)
PART = st.fixed_dictionaries({"type": st.sampled_from(["text", "python", "output"]), "text": TEXT})


def chat(*contents, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *turns]}


@st.composite
def conversations(draw):
    contents = [
        draw(TEXT) if i % 2 == 0 else draw(TEXT | st.lists(PART, max_size=3)) for i in range(draw(st.integers(1, 5)))
    ]
    return chat(*contents, system=draw(st.none() | TEXT.filter(bool)))


class Words:
    """One id per text, so that tests can count tokens by hand. Ids of GPT-2's size."""

    name, vocab_size, eot_id, special_tokens = "words", 50257, 50256, {"<|endoftext|>": 50256}

    def __init__(self):
        self.texts = []

    def encode_array(self, text):
        self.texts.append(text)
        return np.array([len(self.texts) - 1], np.uint32)


# --- the tokens --------------------------------------------------------------------------------------------------


def test_ids_of_both_templates_after_gpt2s():
    """The tables of spec/scaling_midtrain_chat §4c."""
    chatml, roles = (add_special_tokens(Words(), name).special_tokens for name in ("chatml", "roles"))
    assert [chatml[f"<|{name}|>"] for name in ("endoftext", "bos", "im_start", "im_end")] == [
        50256,
        50257,
        50258,
        50259,
    ]
    assert [chatml[f"<|{name}|>"] for name in ("python_start", "python_end")] == [50260, 50261]
    assert [chatml[f"<|{name}|>"] for name in ("output_start", "output_end")] == [50262, 50263]
    names = "bos user_start user_end assistant_start assistant_end python python_end output_start output_end"
    assert [roles[f"<|{name}|>"] for name in names.split()] == list(range(50257, 50266))
    for name in TEMPLATES:
        assert add_special_tokens(Words(), name).vocab_size == 50266 < 50304


def test_ids_begin_where_the_base_ends():
    assert BYTES["chatml"].special_tokens["<|bos|>"] == 260 and BYTES["chatml"].vocab_size == 269
    trained = BPETokenizer.train(["some words, more words"], vocab_size=262)
    assert add_special_tokens(trained, "roles").special_tokens["<|bos|>"] == trained.vocab_size


def test_chatml_is_written_as_its_definition_says():
    rendered = render(chat("Hi", "Yo", system="S"), BYTES["chatml"])
    text = (
        "<|bos|><|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    )
    assert rendered.ids.tolist() == BYTES["chatml"].encode(text) and rendered.ids.dtype == np.uint32
    learned = BYTES["chatml"].decode(rendered.ids[rendered.mask == 1].tolist())
    assert learned == "Yo<|im_end|>" and rendered.targets == 3


def test_roles_of_spec_9_13():
    rendered = render(chat("hi", "yo"), add_special_tokens(Words(), "roles"))
    assert rendered.ids.tolist() == [50257, 50258, 0, 50259, 50260, 1, 50261]
    assert rendered.mask.tolist() == [0, 0, 0, 0, 0, 1, 1] and rendered.mask.dtype == np.uint8


def test_a_system_message_joins_the_first_users_where_it_has_no_tokens():
    merged = render(chat("Hi", "Yo", "So?", system="Be kind."), BYTES["roles"])
    apart = render(chat("Be kind.\n\nHi", "Yo", "So?"), BYTES["roles"])
    assert merged.ids.tolist() == apart.ids.tolist() and merged.mask.tolist() == apart.mask.tolist()


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_use_of_a_tool(name):
    tokenizer, template = BYTES[name], TEMPLATES[name]
    parts = [("text", "so "), ("python", "1+1"), ("output", "2"), ("text", "2.")]
    rendered = render(chat("?", [{"type": kind, "text": text} for kind, text in parts]), tokenizer)
    (python, python_end), (output, output_end) = template.python, template.output
    answer = f"so {python}1+1{python_end}{output}2{output_end}2.{template.stop}"
    assert answer in tokenizer.decode(rendered.ids.tolist())
    learned = tokenizer.decode(rendered.ids[rendered.mask == 1].tolist())
    assert learned == f"so {python}1+1{python_end}2.{template.stop}"


@settings(max_examples=150)
@given(conversation=conversations(), name=st.sampled_from(sorted(TEMPLATES)))
def test_no_content_becomes_a_special_token_and_none_is_lost(conversation, name):
    tokenizer, template = BYTES[name], TEMPLATES[name]
    rendered = render(conversation, tokenizer)
    special = [i for i in rendered.ids.tolist() if i >= 256]
    messages = conversation["messages"]
    merged = name == "roles" and messages[0]["role"] == "system"
    tools = [p for m in messages if isinstance(m["content"], list) for p in m["content"] if p["type"] != "text"]
    assert len(special) == 1 + 2 * (len(messages) - merged) + 2 * len(tools), "those of the template, no more"
    learned = bytes(i for i, m in zip(rendered.ids.tolist(), rendered.mask, strict=True) if m and i < 256)
    said = "".join(
        m["content"]
        if isinstance(m["content"], str)
        else "".join(p["text"] for p in m["content"] if p["type"] != "output")
        for m in messages
        if m["role"] == "assistant"
    )
    assert learned.decode() == said
    stops = rendered.mask[rendered.ids == tokenizer.special_tokens[template.stop]]
    assert stops.sum() == sum(m["role"] == "assistant" for m in messages)


@settings(max_examples=100)
@given(conversation=conversations(), name=st.sampled_from(sorted(TEMPLATES)), max_tokens=st.integers(2, 80))
def test_a_cut_conversation_is_a_beginning_of_the_whole(conversation, name, max_tokens):
    whole, cut = (render(conversation, BYTES[name], max_tokens=limit) for limit in (None, max_tokens))
    assert len(cut.ids) == len(cut.mask) == min(max_tokens, len(whole.ids))
    assert cut.ids.tolist() == whole.ids[:max_tokens].tolist(), "no end token in place of what was cut"
    assert cut.mask.tolist() == whole.mask[:max_tokens].tolist()


@settings(max_examples=100)
@given(conversation=conversations(), answer=TEXT, name=st.sampled_from(sorted(TEMPLATES)))
def test_a_prompt_is_what_comes_before_the_answer(conversation, answer, name):
    messages = conversation["messages"]
    if messages[-1]["role"] != "user":
        with pytest.raises(ValueError, match="a prompt ends with the user's"):
            prompt(conversation, BYTES[name])
        return
    asked = prompt(conversation, BYTES[name])
    full = render({"messages": [*messages, {"role": "assistant", "content": answer}]}, BYTES[name])
    assert full.ids[: len(asked)].tolist() == asked
    rest = full.ids[len(asked) :].tolist()
    stop = BYTES[name].special_tokens[TEMPLATES[name].stop]
    assert (
        rest[: rest.index(stop)] == list(answer.encode())
        and full.mask[len(asked) : len(asked) + len(rest[: rest.index(stop)])].all()
    )


# --- what is wrong with a conversation ---------------------------------------------------------------------------

USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], r"is \{'messages': \[\.\.\.\]\} with at least one, got \{'messages': \[\]\}"),
        ("hi", "with at least one"),
        ([SYSTEM], "needs a message of the user after that of the system"),
        ([ASSISTANT], r"message 0 is of 'assistant', expected 'user'"),
        ([USER, USER], r"message 1 is of 'user', expected 'assistant': after at most one of the system"),
        ([SYSTEM, USER, ASSISTANT, ASSISTANT], r"message 3 is of 'assistant', expected 'user'"),
        ([USER, SYSTEM], r"message 1 is of 'system', expected 'assistant'"),
        ([{"role": "tool", "content": "x"}], r"message 0 is of 'tool', expected 'user'"),
        ([{"role": "user"}], "message 0 needs a role and a content"),
        ([{"role": "user", "content": None}], r"content of message 0 \(user\) must be text, got None"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], r"must be text, got \["),
        ([USER, {"role": "assistant", "content": 3}], r"\(assistant\) must be text or a list of parts, got 3"),
        ([USER, {"role": "assistant", "content": [{"type": "code", "text": ""}]}], r"text \| python \| output"),
        ([USER, {"role": "assistant", "content": [{"type": "text"}]}], r"a part of message 1 must be"),
    ],
)
def test_a_malformed_conversation_is_explained(messages, problem):
    for function in (render, prompt):
        with pytest.raises(ValueError, match=problem):
            function({"messages": messages}, BYTES["chatml"])


def test_what_cannot_be_rendered_is_explained():
    with pytest.raises(
        ValueError, match=r"'byte' has the tokens of no chat template\. Give it some: .*add_special_tokens"
    ):
        render(chat("a"), ByteTokenizer())
    with pytest.raises(ValueError, match=r"'byte' has no token '<\|bos\|>', which the template 'roles' needs"):
        render(chat("a"), ByteTokenizer(), "roles")
    with pytest.raises(ValueError, match=r"has no token '<\|im_start\|>', which the template 'chatml' needs"):
        render(chat("a"), BYTES["roles"], "chatml")
    with pytest.raises(ValueError, match="no chat template 'llama', expected one of chatml, roles"):
        render(chat("a"), BYTES["roles"], "llama")
    with pytest.raises(ValueError, match="max_tokens is 1, expected at least 2"):
        render(chat("a"), BYTES["roles"], max_tokens=1)


# --- the tokenizer -----------------------------------------------------------------------------------------------


def test_a_template_is_added_once():
    assert add_special_tokens(BYTES["roles"], "roles") is BYTES["roles"]
    with pytest.raises(ValueError, match=r"has the tokens of 'roles', 'chatml' was asked for\. Start from its `base`"):
        add_special_tokens(BYTES["roles"], "chatml")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_is_saved_with_the_tokenizer(name, tmp_path):
    tokenizer = add_special_tokens(BPETokenizer.train(["some words, more words"], vocab_size=262), name)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.template == name and loaded.name == tokenizer.name
    assert loaded.special_tokens == tokenizer.special_tokens and loaded.vocab_size == tokenizer.vocab_size
    example = chat("Hi", "Yo words", system="S")
    assert render(example, loaded).ids.tolist() == render(example, tokenizer).ids.tolist()

"""The parts of apps/chat: prompts that no text can break, answers as text, limits."""

import random
from collections import Counter

import pytest
import torch

from app_modules import app_modules
from chat_toys import save_run, turns
from gpt_data.chat import TEMPLATES, add_special_tokens, prompt
from gpt_data.tokenizers import ByteTokenizer, CharTokenizer
from hostility import SPECIALS, hostile


@pytest.fixture(scope="module")
def app():
    """app("speaker") is that module of apps/chat."""
    with app_modules("chat") as import_:
        yield import_


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat")
    save_run(out, "roles", template="roles")
    return out


def speaker_of(app, template="chatml", context=256, tokenizer=None):
    if tokenizer is None:
        tokenizer = ByteTokenizer() if template is None else add_special_tokens(ByteTokenizer(), template)
    loading = app("loading")
    found = None if template is None else TEMPLATES[template]
    return app("speaker").Speaker(loading.Loaded("m", torch.nn.Linear(1, 1), tokenizer, found, context)), tokenizer


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("system", [None, "be brief"])
def test_prompts_are_those_that_the_model_was_trained_on(app, template, system):
    speaker, tokenizer = speaker_of(app, template, context=10_000)
    draw = random.Random(0)
    for _ in range(20):
        texts = ["".join(draw.choice([*SPECIALS, "é", "x", "\n"]) for _ in range(5)) for _ in range(5)]
        messages = turns(*texts, system=system)
        assert speaker.prompt(messages).ids == prompt({"messages": messages}, tokenizer, template)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_text_becomes_a_control_token(app, template):
    validation = app("validation")
    speaker, tokenizer = speaker_of(app, template, context=40_000)
    control = set(tokenizer.special_tokens.values())
    draw, served = random.Random(1), 0
    structure = {}
    for _ in range(700):
        try:
            ask = validation.parse_ask(validation.parse_json(hostile(draw)[2]["content"]), validation.Defaults())
            ids = speaker.prompt(ask.messages).ids
        except ValueError:
            continue
        served += 1
        roles = tuple(message["role"] for message in ask.messages)
        if roles not in structure:  # the same conversation with harmless words
            plain = [{"role": role, "content": "x"} for role in roles]
            structure[roles] = Counter(token for token in speaker.prompt(plain).ids if token in control)
        assert Counter(token for token in ids if token in control) == structure[roles]
    assert served > 40


def test_what_the_model_said_is_fed_back_token_by_token(app):
    speaker, tokenizer = speaker_of(app)
    special = tokenizer.special_tokens
    first = speaker.prompt(turns("2+2?")).ids
    said = [special["<|python_start|>"], *b"2+2", special["<|python_end|>"], special["<|output_start|>"], *b"4"]
    said += [special["<|output_end|>"], *b"four"]
    speaker.remember(first, "four", said)
    again = speaker.prompt(turns("2+2?", "four", "sure?")).ids
    assert again[: len(first) + len(said) + 1] == [*first, *said, special["<|im_end|>"]], "and its end, said or not"
    for changed in (turns("2+2?", "fou", "sure?"), turns("2+3?", "four", "sure?")):
        assert special["<|python_start|>"] not in speaker.prompt(changed).ids


@pytest.mark.parametrize(
    ("template", "ends", "never"),
    [
        ("chatml", "bos im_start im_end", "output_start output_end reserved_0 reserved_1"),
        ("roles", "bos user_start user_end assistant_start assistant_end", "output_start output_end"),
    ],
)
def test_what_ends_an_answer_and_what_a_model_may_not_write(app, template, ends, never):
    speaker, tokenizer = speaker_of(app, template)
    ids = {token.strip("<|>"): i for token, i in tokenizer.special_tokens.items()}
    assert speaker.stop_ids == {tokenizer.eot_id, *(ids[name] for name in ends.split())}
    assert set(speaker.banned_ids) == {ids[name] for name in [*never.split(), "PAD", "UNK", "BOS"]}


def test_the_oldest_turns_go_and_it_is_said(app):
    speaker, _ = speaker_of(app, context=160)
    messages = turns("a" * 30, "b" * 30, "c" * 30, "d" * 30, "e" * 5, system="S")
    with pytest.raises(app("speaker").TooLong, match="context holds 160; leave out the oldest turns"):
        speaker.prompt(messages, 20)
    short = speaker.prompt(messages, 20, evict=True)
    assert len(short.ids) <= 140 and "The 2 oldest messages no longer fit" in short.notice
    text = bytes(i for i in short.ids if i < 256).decode()
    assert "S" in text and "e" * 5 in text and "aa" not in text and "cc" in text
    with pytest.raises(app("speaker").TooLong, match="shorten the last message"):
        speaker.prompt(turns("x" * 500), 20, evict=True)
    assert speaker.prompt(turns("hi"), 20, evict=True).notice == ""


def test_a_base_model_reads_one_text(app):
    speaker, _ = speaker_of(app, None, context=32)
    assert bytes(speaker.prompt(turns("one ", "two ", "three")).ids) == b"one two three"
    assert not speaker.is_chat and speaker.tool is None
    with pytest.raises(ValueError, match="context holds 32"):
        speaker.prompt(turns("x" * 33))
    cut = speaker.prompt(turns("x" * 33 + "end"), 8, evict=True)
    assert len(cut.ids) == 24 and bytes(cut.ids).endswith(b"end") and "last 24 of 36" in cut.notice
    letters, _ = speaker_of(app, None, tokenizer=CharTokenizer("abc"))
    with pytest.raises(ValueError, match="'d'"):
        letters.prompt(turns("abcd"))


def events(app, ids, reason="stop_token"):
    made = [app_event(token) for token in ids]
    return [*made, app_event(None, reason)]


def app_event(token, reason=None):
    from gpt_core.generate import Event

    return Event(1, 0, token, False, reason)


@pytest.mark.parametrize(
    ("written", "text", "calculations"),
    [
        ("so <P>12/60<E><O>0.2<X> it is", "so  it is", [("12/60", "0.2")]),
        ("<P>a<E> no answer", " no answer", [("a", None)]),
        ("<P>1+1<E><O>2<X><P>3+3<E><O>6<X>.", ".", [("1+1", "2"), ("3+3", "6")]),
        ("<P>never closed", "", [("never closed", None)]),
        ("<P>1<E>", "", [("1", None)]),
        ("<E>plain", "plain", []),
        ("äö€", "äö€", []),
    ],
)
def test_answers_are_text_and_calculations_apart(app, written, text, calculations):
    speaker, tokenizer = speaker_of(app)
    names = {"<P>": "<|python_start|>", "<E>": "<|python_end|>", "<O>": "<|output_start|>", "<X>": "<|output_end|>"}
    for short, long in names.items():
        written = written.replace(short, long)
    answer = app("answer").AnswerText(speaker.decode, [], (), speaker.tool)
    pieces = [answer.push(event) for event in events(app, tokenizer.encode(written))]
    whole = app("answer").merged(pieces)
    assert (whole.text, whole.finish) == (text, "stop") and answer.text == text
    assert [(made.expression, made.result) for made in whole.calculations] == calculations
    assert whole.tokens == len(tokenizer.encode(written))
    assert "\ufffd" not in "".join(piece.text for piece in pieces)


def test_a_result_that_the_limit_cuts_is_none(app):
    speaker, tokenizer = speaker_of(app)
    ids = tokenizer.encode("<|python_start|>600*6<|python_end|><|output_start|>36")
    answer = app("answer").AnswerText(speaker.decode, [], (), speaker.tool)
    pieces = [answer.push(app_event(token)) for token in ids[:-1]] + [answer.push(app_event(ids[-1], "length"))]
    assert [(made.expression, made.result) for made in pieces[-1].calculations] == [("600*6", None)]


def test_a_stop_text_ends_an_answer_before_it(app):
    answer = app("answer").AnswerText(ByteTokenizer().decode, [], ("END",), None)
    said = []
    for token in b"so it goes EN route END and more":
        said.append(answer.push(app_event(token)))
        if answer.done:
            break
    assert "".join(piece.text for piece in said) == "so it goes EN route "
    assert (said[-1].finish, said[-1].detail) == ("stop", "stop_text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": turns("x") * 501}, "list of 1 to 500, got 501"),
        ({"messages": []}, "got 0 of them"),
        ({"messages": turns("x" * 8001)}, "8001 characters, at most 8000"),
        ({"messages": turns(*["x" * 7000] * 5)}, "35000 characters in all, at most 32000"),
        ({"messages": turns("a", "b")}, "last message must be the user's"),
        ({"messages": [turns("a")[0]] * 2}, "message 1 is of 'user', expected 'assistant'"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "role 'tool'"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "message 0 is empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be text"),
        ({"temperature": 2.1}, "from 0 to 2, got 2.1"),
        ({"temperature": float("nan")}, "from 0 to 2, got nan"),
        ({"temperature": True}, "got True"),
        ({"top_k": 201}, "from 0 to 200, got 201"),
        ({"top_k": 5.0}, "whole number"),
        ({"max_tokens": 4097}, "from 1 to 4096, got 4097"),
        ({"max_tokens": 0}, "from 1 to 4096"),
        ({"n": 9}, "from 1 to 8"),
        ({"seed": 2**64}, "seed must be a whole number"),
        ({"stop": ["a"] * 5}, "at most 4"),
        ({"stop": ""}, "1 to 200 characters"),
        ({"stop": "\ud800"}, "surrogate"),
        ({"stream": "yes"}, "true or false"),
        ({"temprature": 1}, "no field 'temprature'; did you mean temperature?"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not served"),
        ({"tools": [{}]}, "tools is not served"),
    ],
)
def test_limits_are_said(app, change, message):
    validation = app("validation")
    with pytest.raises(validation.Refused, match=message):
        validation.parse_ask({"messages": turns("hi"), **change}, validation.Defaults())


def test_what_openais_clients_send_is_understood(app):
    validation = app("validation")
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    body = {"messages": [{"role": "developer", "content": "S"}, {"role": "user", "content": parts, "name": "x"}]}
    body |= {"max_completion_tokens": 7, "frequency_penalty": 0, "user": "u", "stop": None, "stream": False, "top_p": 0}
    optional = ("model", "top_k", "n", "seed", "stream_options", "logprobs", "tools", "response_format")
    body |= dict.fromkeys(optional)
    ask = validation.parse_ask(body, validation.Defaults(temperature=0.5))
    assert ask.messages == [{"role": "system", "content": "S"}, {"role": "user", "content": "hello"}]
    assert ask.max_tokens == 7 and ask.sampling.temperature == 0.5 and ask.stop == ()


@pytest.mark.parametrize(
    ("asked", "recorded", "template"),
    [(None, None, "chatml"), (None, "chatml", "chatml"), ("raw", "chatml", None), ("chatml", None, "chatml")],
)
def test_which_template_a_checkpoint_is_read_with(app, asked, recorded, template):
    choose = app("loading").choose_template
    tokenizer = add_special_tokens(ByteTokenizer())
    found = choose(asked, recorded, tokenizer)
    assert (found and found.name) == template
    assert choose(None, None, ByteTokenizer()) is None
    with pytest.raises(ValueError, match=r"no token '<\|user_start\|>'"):
        choose("roles", None, tokenizer)
    with pytest.raises(ValueError, match="no chat template 'alpaca'"):
        choose("alpaca", None, tokenizer)

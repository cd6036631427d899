"""The parts of apps/chat: prompts that no text can break, answers as text, places, limits, the terminal."""

import asyncio
import io
import os
import random
import signal
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from chat_toys import chat_modules, save_run
from gpt_core.generate import Sampling
from gpt_data.chat import TEMPLATES, add_special_tokens, prompt
from gpt_data.tokenizers import ByteTokenizer, CharTokenizer
from hostility import SPECIALS, hostile


@pytest.fixture(scope="module")
def app():
    """app("speaker") is that module of apps/chat."""
    with chat_modules() as import_:
        yield import_


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat")
    save_run(out, "base", template=None)
    save_run(out, "roles", template="roles")
    save_run(out, "toy")
    return out


def speaker_of(app, template="chatml", context=256, tokenizer=None):
    if tokenizer is None:
        tokenizer = ByteTokenizer() if template is None else add_special_tokens(ByteTokenizer(), template)
    loading = app("loading")
    found = None if template is None else TEMPLATES[template]
    return app("speaker").Speaker(loading.Loaded("m", torch.nn.Linear(1, 1), tokenizer, found, context)), tokenizer


def turns(*texts, system=None):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + messages


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


class Place:
    def __init__(self, rows):
        self.rows, self.busy = rows, 0


def test_places_are_handed_out_in_order_and_come_back(app):
    hall_module = app("hall")

    async def scene():
        hall, told = hall_module.Hall([Place(2), Place(2)], timeout=5, most_waiting=3), []
        first = [await hall.enter(1) for _ in range(4)]
        assert sorted(worker.busy for worker in hall.workers) == [2, 2]
        big = asyncio.create_task(hall.enter(2, lambda position: told.append(("big", position))))
        await asyncio.sleep(0)
        small = asyncio.create_task(hall.enter(1, lambda position: told.append(("small", position))))
        gone = asyncio.create_task(hall.enter(1))
        await asyncio.sleep(0)
        with pytest.raises(hall_module.Busy, match="3 requests wait already"):
            await hall.enter(1)
        gone.cancel()
        await asyncio.sleep(0)
        hall.leave(first[0], 1)
        await asyncio.sleep(0)
        assert not big.done() and not small.done(), "who came first is first, though the second would fit"
        hall.leave(first[2], 1) if first[2] is first[0] else hall.leave(next(w for w in first[1:] if w is first[0]), 1)
        await asyncio.sleep(0.01)
        assert big.done() and not small.done()
        hall.leave(big.result(), 2)
        await small
        assert told == [("big", 1), ("small", 2), ("small", 1)]
        assert hall.waiting == 0 and sum(worker.busy for worker in hall.workers) == 3

    asyncio.run(scene())


def test_a_worker_that_is_replaced_ends_when_nobody_has_a_place_there(app):
    class Closing(Place):
        closed = False

        def close(self):
            self.closed = True

    async def scene():
        old, idle, new = Closing(1), Closing(1), Place(1)
        hall = app("hall").Hall([old, idle], timeout=5, most_waiting=3)
        assert await hall.enter(1) is old
        waiting = asyncio.create_task(hall.enter(1))
        idle.busy = 1
        await asyncio.sleep(0)
        hall.leave(old, 1)  # promised to the one who waits, and who does not know yet
        hall.swap([new])
        assert not old.closed and not idle.closed
        assert await waiting is old
        hall.leave(old, 1)
        hall.leave(idle, 1)
        assert old.closed and idle.closed and await hall.enter(1) is new

    asyncio.run(scene())


def test_nobody_waits_longer_than_told_and_no_place_is_lost(app):
    hall_module = app("hall")

    async def scene():
        hall = hall_module.Hall([Place(1)], timeout=0.05, most_waiting=5)
        worker = await hall.enter(1)
        with pytest.raises(hall_module.Busy, match=r"within 0\.05 s"):
            await hall.enter(1)
        waiting = asyncio.create_task(hall.enter(1))
        await asyncio.sleep(0)
        hall.leave(worker, 1)  # given to the one who waits, who goes in the same moment
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert worker.busy == 0 and hall.waiting == 0

    asyncio.run(scene())


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


@pytest.fixture
def terminal(app, out, monkeypatch, capsys):
    """terminal(lines, *arguments): (status, stdout, stderr) of the app when these lines are typed."""

    def run(lines, *arguments):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        options = app("options").parse([str(out / "toy"), "--top_k", "3", "--device", "cpu", *arguments], None)
        status = app("terminal").chat(options)
        return status, *capsys.readouterr()

    return run


def test_one_prompt_is_answered_and_a_seed_repeats_it(terminal):
    runs = [terminal([], "--prompt", "hi", "--max_new_tokens", "12", "--seed", seed) for seed in ("1", "1", "2")]
    assert [status for status, _, _ in runs] == [0, 0, 0]
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert "12 tokens" in runs[0][2] and "cut at --max_new_tokens" in runs[0][2]


def test_a_conversation_with_commands(terminal):
    lines = [
        "hi",
        "/temperature 0",
        "/temperature x",
        "/topk 5",
        "/nope",
        "/help",
        "and?",
        "/clear",
        "/system be kind",
        "so",
        "/quit",
        "no",
    ]
    status, said, about = terminal(lines, "--max_new_tokens", "8")
    assert status == 0 and said.count("\n") >= 3
    for message in ("temperature 0", "takes a number", "top_k 5", "no command /nope", "now 0", "forgotten", "is set"):
        assert message in about
    assert about.count("8 tokens, ") == 3
    assert all(ord(c) >= 32 or c in "\n\t" for c in said), "a model cannot move the cursor"


def test_the_end_of_input_ends_it_and_the_system_speaks_first(terminal, app, monkeypatch):
    heard, prompt = [], app("speaker").Speaker.prompt

    def listening(self, messages, *rest, **more):
        heard.append(messages)
        return prompt(self, messages, *rest, **more)

    monkeypatch.setattr(app("speaker").Speaker, "prompt", listening)
    status, said, _ = terminal(["hi"], "--system", "be kind", "--max_new_tokens", "4")
    assert status == 0 and said
    assert heard == [turns("hi", system="be kind")]


def test_turns_share_the_cache(app, out):
    options = app("options").parse([str(out / "toy"), "--top_k", "3", "--device", "cpu", "--max_new_tokens", "9"], None)
    talk = app("terminal").Talk(options)
    for text in ("hello there, my friend", "and how are you?", "well"):
        list(talk.answer(text))
    counts = talk._batch.counts
    assert counts.reused_tokens > 80 and counts.prompt_tokens - counts.reused_tokens < 120
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"] * 3


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_the_answer_and_a_second_one_the_program(app, out, presses):
    options = app("options").parse(
        [str(out / "toy"), "--top_k", "3", "--device", "cpu", "--max_new_tokens", "200"], None
    )
    module, answer = app("terminal"), app("terminal").Talk.answer
    talk = module.Talk(options)

    def interrupted(text):
        for number, piece in enumerate(answer(talk, text)):
            if number == 5:
                for _ in range(presses):
                    os.kill(os.getpid(), signal.SIGINT)
            yield piece

    talk.answer = interrupted
    if presses == 1:
        assert module.show(talk, "hi")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    else:
        with pytest.raises(KeyboardInterrupt):
            module.show(talk, "hi")


def test_nonsense_on_the_command_line_is_one_line(terminal, out, app):
    with pytest.raises(ValueError, match="empty"):
        terminal([], "--prompt", " ")
    with pytest.raises(ValueError, match="no chat template 'x'"):
        terminal([], "--template", "x")
    serve = ["serve", str(out / "toy")]
    for wrong, message in ((["--rows", "0"], "--rows must lie"), (["--devices", "tpu"], "no device 'tpu'")):
        with pytest.raises(ValueError, match=message):
            app("serving").open_site(app("options").parse([*serve, *wrong], None))


def test_a_gpu_without_room_is_one_line(app, out, monkeypatch):
    made, closed = [], []

    def worker(number, *arguments):
        if made:
            raise torch.OutOfMemoryError("CUDA out of memory")
        made.append(number)
        return SimpleNamespace(close=lambda: closed.append(number))

    monkeypatch.setattr(app("site_state"), "Worker", worker)
    with pytest.raises(ValueError, match="keys and values of 64 answers do not fit on cpu, cpu: choose fewer --rows"):
        app("serving").open_site(app("options").parse(["serve", str(out / "toy"), "--devices", "cpu,cpu"], None))
    assert made == closed == [0], "the replica that had room gives it back"


def test_who_may_call_the_server(app):
    allowed = app("serving").allowed_hosts
    assert allowed("127.0.0.1", []) == {"localhost", "127.0.0.1", "::1"}
    assert allowed("0.0.0.0", []) is None and allowed("::", []) is None
    assert "gpu-box" in allowed("0.0.0.0", ["GPU-box"])


@pytest.fixture
def hall(app, out):
    """One worker of the small model, and what its requests are counted by."""
    workers = app("site_state").start_workers(out / "toy", "latest", app("loading").How(), ["cpu"], 3, 1 << 20)
    hall = app("hall").Hall(workers, timeout=60, most_waiting=3)
    hall.metrics = app("metrics").Metrics()
    yield hall
    workers[0].abandon()


def ask_of(app, count=20, **more):
    return app("validation").Ask(turns("hi"), Sampling(top_k=3), count, **more)


async def become(true):
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.01)


def test_an_answer_that_nobody_reads_gives_its_place_back(app, hall):
    async def scene():
        answering = await app("service").answer(ask_of(app, samples=2), hall, hall.metrics)
        assert hall.workers[0].busy == 2
        await become(lambda: hall.workers[0].busy == 0)
        pieces = [piece async for piece in answering]
        answering.close()
        assert sum(piece.tokens for piece in pieces) == 40 and hall.workers[0].busy == 0
        assert hall.metrics.answers == {"finished": 1} and hall.metrics.new_tokens == 40

    asyncio.run(scene())


def test_a_model_that_fails_fails_its_answers_only(app, hall):
    worker, failed = hall.workers[0], app("service").WorkerFailed

    async def said():
        answering = await app("service").answer(ask_of(app), hall, hall.metrics)
        try:
            return sum([piece.tokens async for piece in answering])
        finally:
            answering.close()

    async def scene():
        step, worker._batch.step = worker._batch.step, lambda: 1 / 0
        for answer in await asyncio.gather(said(), said(), return_exceptions=True):
            assert isinstance(answer, failed)
        worker._batch.step = step
        weights = worker.loaded.model.norm.weight
        kept = weights.detach().clone()
        with torch.no_grad():
            weights.fill_(float("nan"))
            with pytest.raises(failed):
                await said()
            weights.copy_(kept)
        assert await said() == 20 and worker.busy == 0
        assert hall.metrics.answers == {"failed": 3, "finished": 1}

    asyncio.run(scene())


def test_a_session_holds_what_is_read_and_stays_cleared(app, hall):
    module = app("sessions")
    site = SimpleNamespace(hall=hall, metrics=hall.metrics)

    async def scene():
        session = module.Session(turns(*["x" * 3000] * 20))
        said = await module._turn(site, "s", session, "hi", Sampling(top_k=3), 9)
        assert len(said["conversation"]) == 12 and session.messages == said["conversation"]
        assert "10 older messages are left out" in said["notice"]
        asking = asyncio.create_task(module._turn(site, "s", session, "so?", Sampling(top_k=3), 9))
        await become(lambda: hall.workers[0].busy == 1)
        session.messages = []
        assert (await asking)["response"] and session.messages == []

    asyncio.run(scene())


def test_sessions_are_forgotten_when_idle_and_the_oldest_when_there_are_many(app):
    sessions = app("sessions").Sessions(idle_seconds=3600, most=2)
    names = [sessions.new()[0] for _ in range(2)]
    sessions.get(names[0])
    sessions.new()
    assert sessions.get(names[0])
    with pytest.raises(app("validation").Refused, match="no such session"):
        sessions.get(names[1])
    sessions.get(names[0]).used -= 3601
    with pytest.raises(app("validation").Refused, match="an hour"):
        sessions.get(names[0])


def test_answers_are_remembered_up_to_a_number_of_tokens(app, monkeypatch):
    monkeypatch.setattr(app("speaker"), "REMEMBERED_TOKENS", 10)
    answers = app("speaker")._Answers()
    for name, count in (("a", 4), ("b", 4), ("a", 5), ("c", 1)):
        answers.put(b"", name, [7] * count)
    assert answers.get(b"", "a") == [7] * 5 and answers.get(b"", "b") == [7] * 4
    answers.put(b"", "d", [7])
    assert [name for name in "abcd" if answers.get(b"", name)] == ["a", "b", "d"], "c was used longest ago"


def test_a_port_that_is_taken_is_one_line(app):
    listen = app("serving").listen
    with listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match=r"in use.*; choose another --host or --port"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_client_that_takes_nothing_is_given_up(app, monkeypatch):
    streams, closed = app("streams"), []
    monkeypatch.setattr(streams, "SEND_SECONDS", 0.05)

    async def scene():
        async def one():
            yield b"x"

        async def forever(*message):
            if not message or message[0]["type"] == "http.response.body":
                await asyncio.sleep(60)

        await asyncio.wait_for(streams.EventStream(one(), lambda: closed.append(True))({}, forever, forever), 5)

    asyncio.run(scene())
    assert closed == [True]


def test_an_answer_whose_stream_never_began_gives_its_place_back(app):
    streams, closed = app("streams"), []

    async def scene():
        async def never():
            yield b"x"

        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            await asyncio.sleep(60)

        await streams.EventStream(never(), lambda: closed.append(True))({"type": "http"}, receive, send)

    asyncio.run(scene())
    assert closed == [True]

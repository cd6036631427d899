"""apps/chat in a terminal: a prompt, conversations with commands, Ctrl-C, nonsense."""

import io
import os
import signal
import sys
from types import SimpleNamespace

import pytest
import torch

from app_modules import app_modules
from chat_toys import save_run, turns


@pytest.fixture(scope="module")
def app():
    """app("speaker") is that module of apps/chat."""
    with app_modules("chat") as import_:
        yield import_


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = tmp_path_factory.mktemp("chat")
    save_run(out, "base", template=None)
    save_run(out, "toy")
    return out


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

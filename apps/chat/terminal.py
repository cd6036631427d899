"""The conversation in a terminal. Stdout holds only what the model says; everything about it goes to stderr."""

import argparse
import random
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Generator

from answer import AnswerText, Piece
from loading import How, load
from speaker import Speaker

from gpt_core.distributed import distributed
from gpt_core.generate import ContinuousBatch, Request, Sampling

HELP = """/clear               forget the conversation
/temperature X       0: always the likeliest token; now {temperature:g}
/topk K              choose among the K likeliest tokens, 0: all; now {top_k}
/system TEXT         a message of the system before the conversation
/help  /quit         this; the end (also Ctrl-D)
Ctrl-C ends an answer; where there is none, it ends the conversation."""


class Interrupts:
    """Ctrl-C while an answer grows: the first asks for its end, a second one ends the program."""

    def __init__(self) -> None:
        self.wanted = False

    def __enter__(self) -> "Interrupts":
        self.wanted = False
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: object) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


class Talk:
    """One conversation with one model, whose cache is kept over the turns."""

    def __init__(self, options: argparse.Namespace):
        with distributed(options.device) as process:
            how = How(process.device, options.dtype, options.tokenizer, options.template, tuple(options.trust))
        self.loaded = load(options.model, options.checkpoint, how)
        self.speaker = Speaker(self.loaded)
        self._batch = ContinuousBatch(self.loaded.model, 1, vocab_size=self.loaded.tokenizer.vocab_size)
        self.temperature, self.top_k, self.limit = options.temperature, options.top_k, options.max_new_tokens
        self.system = options.system or ""
        self._random = random.Random(options.seed)
        self.turns: list[dict[str, str]] = []

    def answer(self, text: str) -> Generator[Piece]:
        """The model's answer, piece by piece. However it ends, the conversation then holds what was said of it."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        prompt = self.speaker.prompt([*system, *self.turns, {"role": "user", "content": text}], self.limit, evict=True)
        if prompt.notice:
            say(prompt.notice)
        speaker = self.speaker
        said = AnswerText(speaker.decode, prompt.ids, (), speaker.tool)
        request = Request(
            prompt.ids,
            self.limit,
            Sampling(self.temperature, self.top_k or None),
            seed=self._random.getrandbits(48),
            stop_ids=speaker.stop_ids,
            banned_ids=speaker.banned_ids,
            tool=speaker.tool,
        )
        ticket = self._batch.add(request)
        try:
            while self._batch.busy:
                for event in self._batch.step():
                    if event.reason == "not_finite":
                        raise ValueError("the model's logits are NaN or infinite; try --dtype float32")
                    yield said.push(event)
        finally:
            self._batch.cancel(ticket)
            self.turns += [{"role": "user", "content": text}, {"role": "assistant", "content": said.text}]
            speaker.remember(prompt.ids, said.text, said.ids)  # of an interrupted answer, too


def chat(options: argparse.Namespace) -> int:
    """Talk until the user has had enough; returns the exit status."""
    talk = Talk(options)
    if options.prompt is not None:
        if not options.prompt.strip():
            raise ValueError("--prompt is empty; give it a text")
        return 130 if show(talk, options.prompt) else 0
    loaded = talk.loaded
    kind = "answers" if talk.speaker.is_chat else "continues text: it has no chat template"
    say(f"{loaded.name}: {loaded.parameters:,} parameters on {loaded.device}; {kind}. /help lists commands.")
    while True:
        try:
            line = read_line()
        except (EOFError, KeyboardInterrupt):
            say("")
            return 0
        if line.startswith("/"):
            if command(talk, line):
                return 0
        elif line:
            try:
                show(talk, line)
            except ValueError as error:  # too long, or a character that the tokenizer does not know
                say(f"error: {error}")


def read_line() -> str:
    """What the user types next, without spaces around it. EOFError, KeyboardInterrupt: they want to go."""
    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives input() a history and keys to edit with

        return input("\n> ").strip()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()


def show(talk: Talk, text: str) -> bool:
    """Print the answer as it comes; True if Ctrl-C ended it."""
    tokens, start, detail = 0, time.perf_counter(), ""
    with Interrupts() as interrupts:
        pieces = talk.answer(text)
        for piece in pieces:
            tokens, detail = tokens + piece.tokens, piece.detail
            print(printable(piece.text), end="", flush=True)
            for made in piece.calculations:
                say(f"[{made.expression} = {'?' if made.result is None else made.result}]")
            if interrupts.wanted:
                pieces.close()
                break
    print(flush=True)
    seconds = time.perf_counter() - start
    ends = {"length": "; cut at --max_new_tokens", "context": "; the model's context is full"}
    why = "; interrupted" if interrupts.wanted else ends.get(detail, "")
    say(f"{tokens} tokens, {tokens / seconds:.0f} tokens/s{why}")
    return interrupts.wanted


def command(talk: Talk, line: str) -> bool:
    """Do what a line with a slash says; True: it ends the conversation."""
    name, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    match name:
        case "quit" | "exit" | "q":
            return True
        case "help":
            say(HELP.format(temperature=talk.temperature, top_k=talk.top_k))
        case "clear":
            talk.turns = []
            say("The conversation is forgotten.")
        case "system":
            talk.system = rest
            say("The system's message is set." if rest else "There is no system's message.")
        case "temperature" | "topk":
            try:
                set_number(talk, name, rest)
            except ValueError as error:
                say(f"error: {error}")
        case _:
            say(f"there is no command /{name}; /help lists them")
    return False


def set_number(talk: Talk, name: str, text: str) -> None:
    """Change a setting. ValueError for a value that makes no sense."""
    if name == "temperature":
        try:
            talk.temperature = Sampling(float(text)).temperature
        except ValueError:
            raise ValueError(f"/temperature takes a number from 0 on, got {text!r}") from None
        say(f"temperature {talk.temperature:g}")
    elif text.isdecimal():
        talk.top_k = int(text)
        say(f"top_k {talk.top_k or 'off: every token'}")
    else:
        raise ValueError(f"/topk takes a whole number from 0 on, got {text!r}")


def printable(text: str) -> str:
    """The text without control characters: a model may write those that move the cursor or change colours."""
    return "".join(c if c in "\n\t" or not unicodedata.category(c).startswith("C") else "\ufffd" for c in text)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)

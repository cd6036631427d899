"""How conversations with one model are written in tokens, and what of them its context can hold.

A chat model reads its template: special tokens by their ids, what people wrote as plain text, so that no text becomes
a control token. A base model reads the messages one after the other as one text, and continues it.
"""

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loading import Loaded

from gpt_core.generate import Tool, calculate
from gpt_data.chat.templates import BOS, ChatTemplate

Message = Mapping[str, str]
REMEMBERED, REMEMBERED_TOKENS = 4096, 1 << 20
"""Answers, and their tokens in all, that are kept, so that a conversation is fed back as the model wrote it."""


class TooLong(ValueError):
    """The conversation does not fit the model's context."""


@dataclass(frozen=True)
class Prompt:
    """A conversation in tokens, ready for the model's answer."""

    ids: list[int]
    notice: str = ""
    """What of it was left out to fit the context, in a sentence; empty: nothing."""


class Speaker:
    """Writes prompts for one model, and says which tokens end its answers.

    Attributes:
        stop_ids: tokens that end an answer.
        banned_ids: tokens that the model may not write: those of the tool's answers, and reserved ones.
        tool: the calculator; None for a base model.
    """

    def __init__(self, loaded: Loaded):
        self._tokenizer, self._template, self.context = loaded.tokenizer, loaded.template, loaded.context
        self._answers = _Answers()
        eot, special = loaded.tokenizer.eot_id, loaded.tokenizer.special_tokens
        self.stop_ids: frozenset[int] = frozenset() if eot is None else frozenset([eot])
        self.banned_ids: tuple[int, ...] = ()
        self.tool: Tool | None = None
        if (template := loaded.template) is not None:
            self.stop_ids |= {special[token] for token in (BOS, *template.starts.values(), *template.ends.values())}
            call_start, call_end = (special[token] for token in template.python)
            answer_start, answer_end = (special[token] for token in template.output)
            self.banned_ids = tuple(sorted(set(special.values()) - self.stop_ids - {call_start, call_end}))
            self.tool = Tool(call_start, call_end, answer_start, answer_end, self._calculate)

    @property
    def is_chat(self) -> bool:
        return self._template is not None

    def prompt(self, messages: Sequence[Message], room: int = 1, evict: bool = False) -> Prompt:
        """The tokens after which the model answers the last message, which is the user's.

        messages: at most one of the system first, then user and assistant in turn.
        evict: leave out the oldest turns (never the system's message) until `room` more tokens fit, at most half the
            context; otherwise, and where one message alone is too long, TooLong.
        ValueError for text that the tokenizer cannot encode.
        """
        if self._template is None:
            return self._continuation("".join(message["content"] for message in messages), room, evict)
        system = messages[0]["content"] if messages[0]["role"] == "system" else None
        turns, dropped = [message for message in messages if message["role"] != "system"], 0
        parts, most = self._write(self._template, system, turns), self.context
        if evict:
            most -= min(room, self.context // 2)
            while _total(parts) > most and dropped + 2 < len(turns):
                sizes, over = [len(part) for part in parts[1:]], _total(parts) - most
                while over > 0 and dropped + 2 < len(turns):
                    over -= sum(sizes[:2])  # a question and its answer
                    del sizes[:2]
                    dropped += 2
                parts = self._write(self._template, system, turns[dropped:])
        if _total(parts) > self.context:
            remedy = "shorten the last message" if evict or len(turns) == 1 else "leave out the oldest turns"
            raise TooLong(
                f"the conversation has {_total(parts)} tokens, and the model's context holds {self.context}; {remedy}"
            )
        notice = f"The {dropped} oldest messages no longer fit the context of {self.context} tokens." if dropped else ""
        return Prompt([token for part in parts for token in part], notice)

    def remember(self, prompt: Sequence[int], text: str, ids: Sequence[int]) -> None:
        """The model answered `prompt` with these tokens, which read as `text`: that is how it will be fed back."""
        if self._template is not None:
            self._answers.put(_digest(prompt), text, ids)

    def encode(self, text: str) -> list[int]:
        """Plain text to tokens, none of them special. ValueError for what the tokenizer does not know."""
        try:
            return self._tokenizer.encode_array(text).tolist()
        except KeyError as error:
            raise ValueError(f"the tokenizer does not know the character {error.args[0]!r}") from error

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))

    def _write(self, template: ChatTemplate, system: str | None, turns: Sequence[Message]) -> list[list[int]]:
        """The tokens in parts: what comes before the first turn, then one part per message.

        A question's part opens the answer too; the parts up to it are the prompt that the answer was an answer to.
        """
        special, preface = self._tokenizer.special_tokens, ""
        parts = [[special[BOS]]]
        if system is not None and "system" in template.starts:
            parts[0] += self._opening(template, "system") + self.encode(system) + self._closing(template, "system")
        elif system is not None:  # this template has no such message: it begins the user's first
            preface = system + "\n\n"
        digest = hashlib.blake2b(array("l", parts[0]).tobytes())
        for number, message in enumerate(turns):
            if message["role"] == "user":
                asked = self.encode(preface + message["content"] if number == 0 else message["content"])
                part = self._opening(template, "user") + asked + self._closing(template, "user")
                part += self._opening(template, "assistant")
            else:
                known = self._answers.get(digest.digest(), message["content"])
                said = self.encode(message["content"]) if known is None else known
                part = said + self._closing(template, "assistant")
            digest.update(array("l", part).tobytes())
            parts.append(part)
        return parts

    def _opening(self, template: ChatTemplate, role: str) -> list[int]:
        header = template.header.format(role=role)
        return [self._tokenizer.special_tokens[template.starts[role]], *(self.encode(header) if header else ())]

    def _closing(self, template: ChatTemplate, role: str) -> list[int]:
        trailer = template.trailer
        return [self._tokenizer.special_tokens[template.ends[role]], *(self.encode(trailer) if trailer else ())]

    def _continuation(self, text: str, room: int, evict: bool) -> Prompt:
        ids = self.encode(text)
        if not ids and self._tokenizer.eot_id is not None:
            ids = [self._tokenizer.eot_id]  # a new document
        if not ids:
            raise ValueError("the text is empty, and this tokenizer has no token that starts one; write something")
        most = self.context - min(room, self.context // 2)
        if evict and len(ids) > most:
            return Prompt(ids[-most:], f"Only the last {most} of {len(ids)} tokens of the text fit the context.")
        if len(ids) > self.context:
            raise TooLong(f"the text has {len(ids)} tokens, and the model's context holds {self.context}; shorten it")
        return Prompt(ids)

    def _calculate(self, ids: Sequence[int]) -> list[int] | None:
        value = calculate(self.decode(ids))
        try:
            return None if value is None else self.encode(value)
        except ValueError:  # a vocabulary of characters without digits
            return None


class _Answers:
    """What was answered to which prompt, and how it read; those used longest ago are forgotten first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[bytes, str], array[int]] = OrderedDict()
        self._tokens, self._lock = 0, threading.Lock()

    def put(self, prompt: bytes, text: str, ids: Sequence[int]) -> None:
        with self._lock:
            self._tokens += len(ids) - len(self._kept.pop((prompt, text), ()))
            self._kept[prompt, text] = array("l", ids)
            while len(self._kept) > REMEMBERED or self._tokens > REMEMBERED_TOKENS:
                self._tokens -= len(self._kept.popitem(last=False)[1])

    def get(self, prompt: bytes, text: str) -> list[int] | None:
        with self._lock:
            if (prompt, text) not in self._kept:
                return None
            self._kept.move_to_end((prompt, text))
            return self._kept[prompt, text].tolist()


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("l", ids).tobytes()).digest()


def _total(parts: Sequence[Sequence[int]]) -> int:
    return sum(map(len, parts))

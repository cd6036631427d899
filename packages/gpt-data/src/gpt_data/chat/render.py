"""From a conversation to ids and the mask of what the model learns to say.

Ids are concatenated: special tokens by id, contents as plain text. A user who writes `<|im_end|>` has written ten
characters and ended nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..tokenizers import Tokenizer
from .conversation import Conversation, Message, check_conversation
from .templates import BOS, ChatTemplate, find_template


class Rendered(NamedTuple):
    """One conversation of N tokens."""

    ids: np.ndarray
    """(N,) uint32, `<|bos|>` first."""
    mask: np.ndarray
    """(N,) uint8: 1 where the id counts as a target: what the assistant says, its expressions for the tool and its end
    token. 0 on all that others say, on the openings of messages and on what a tool answers."""

    @property
    def targets(self) -> int:
        """How many ids count; a conversation with none teaches nothing."""
        return int(self.mask.sum())


def render(
    conversation: Conversation,
    tokenizer: Tokenizer,
    template: str | ChatTemplate | None = None,
    max_tokens: int | None = None,
) -> Rendered:
    """Write a conversation in tokens.

    template: default the one that the tokenizer has tokens of; max_tokens: what comes after is cut off, and nothing is
    put in its place, so that a cut answer does not teach to stop there.
    Errors: ValueError for messages out of turn, contents that are no text, tokens that the tokenizer does not have.
    """
    if max_tokens is not None and max_tokens < 2:
        raise ValueError(f"max_tokens is {max_tokens}, expected at least 2: <|bos|> and one more.")
    writer = _Writer.start(tokenizer, template)
    for message in _merged(check_conversation(conversation), writer.template):
        writer.message(message)
    return writer.rendered(max_tokens)


def prompt(conversation: Conversation, tokenizer: Tokenizer, template: str | ChatTemplate | None = None) -> list[int]:
    """The ids after which the assistant answers the last message: those of `render` up to the answer's first.

    ValueError also if the last message is not the user's.
    """
    messages = check_conversation(conversation)
    if messages[-1]["role"] != "user":
        raise ValueError("the assistant has answered the last message already; a prompt ends with the user's.")
    writer = _Writer.start(tokenizer, template)
    for message in _merged(messages, writer.template):
        writer.message(message)
    writer.open("assistant")
    return writer.rendered(None).ids.tolist()


def _merged(messages: Sequence[Message], template: ChatTemplate) -> list[Message]:
    """A system message that the template has no tokens for is put before the first user's, a blank line between."""
    system = messages[0]
    if system["role"] != "system" or "system" in template.starts:
        return list(messages)
    content = f"{system['content']}\n\n{messages[1]['content']}"
    return [{"role": "user", "content": content}, *messages[2:]]


@dataclass(frozen=True)
class _Writer:
    """Ids and mask under construction."""

    tokenizer: Tokenizer
    template: ChatTemplate
    parts: list[np.ndarray]
    masks: list[tuple[int, int]]
    """Length and mask of each part."""

    @classmethod
    def start(cls, tokenizer: Tokenizer, template: str | ChatTemplate | None) -> _Writer:
        found = find_template(template, tokenizer)
        missing = [spelling for spelling in found.special_tokens if spelling not in tokenizer.special_tokens]
        if missing:
            raise ValueError(
                f"the tokenizer {tokenizer.name!r} has no token {missing[0]!r}, which the template {found.name!r} "
                f"needs. Give it some: gpt_data.chat.add_special_tokens(tokenizer, {found.name!r})."
            )
        writer = cls(tokenizer, found, [], [])
        writer.special(BOS, 0)
        return writer

    def message(self, message: Message) -> None:
        role, content, template = message["role"], message["content"], self.template
        learned = int(role == "assistant")
        self.open(role)
        if isinstance(content, str):
            self.text(content, learned)
        else:
            for part in content:
                self.part(part)
        self.special(template.ends[role], learned)
        self.text(template.trailer, 0)

    def open(self, role: str) -> None:
        self.special(self.template.starts[role], 0)
        self.text(self.template.header.format(role=role), 0)

    def part(self, part: Mapping[str, str]) -> None:
        """A piece of what the assistant says; the answer of a tool is in it and is not its own."""
        learned = int(part["type"] != "output")
        around = {"python": self.template.python, "output": self.template.output}.get(part["type"])
        if around is None:
            self.text(part["text"], learned)
            return
        self.special(around[0], learned)
        self.text(part["text"], learned)
        self.special(around[1], learned)

    def special(self, spelling: str, mask: int) -> None:
        self._add(np.array([self.tokenizer.special_tokens[spelling]], np.uint32), mask)

    def text(self, text: str, mask: int) -> None:
        if text:
            self._add(self.tokenizer.encode_array(text), mask)

    def _add(self, ids: np.ndarray, mask: int) -> None:
        self.parts.append(ids)
        self.masks.append((len(ids), mask))

    def rendered(self, max_tokens: int | None) -> Rendered:
        lengths, masks = np.array(self.masks).T
        mask = np.repeat(masks.astype(np.uint8), lengths)
        return Rendered(np.concatenate(self.parts)[:max_tokens], mask[:max_tokens])

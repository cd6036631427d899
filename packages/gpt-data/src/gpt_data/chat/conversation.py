"""What a conversation is: `{"messages": [{"role": ..., "content": ...}, ...]}`.

Roles: at most one `system` first, then `user` and `assistant` in turn. A content is text; an assistant's may be a list
of parts `{"type": "text" | "python" | "output", "text": ...}`, where `python` is an expression that it has computed and
`output` what came back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Conversation = Mapping[str, Any]
Message = Mapping[str, Any]
PART_TYPES = ("text", "python", "output")


def check_conversation(conversation: Conversation) -> Sequence[Message]:
    """The messages. ValueError names the first one that is not as it should be."""
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else None
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError(f"a conversation is {{'messages': [...]}} with at least one, got {_short(conversation)}.")
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise ValueError(f"message {number} needs a role and a content, got {_short(message)}.")
    turns = messages[1:] if messages[0]["role"] == "system" else messages
    first = len(messages) - len(turns)
    if not turns:
        raise ValueError("a conversation needs a message of the user after that of the system.")
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise ValueError(
                f"message {first + number} is of {message['role']!r}, expected {expected!r}: after at most one of the "
                "system come user and assistant in turn, the user first."
            )
    for number, message in enumerate(messages):
        _check_content(number, message)
    return messages


def _check_content(number: int, message: Message) -> None:
    content = message["content"]
    if isinstance(content, str):
        return
    if message["role"] != "assistant" or not isinstance(content, Sequence):
        may = " or a list of parts" if message["role"] == "assistant" else ""
        raise ValueError(
            f"the content of message {number} ({message['role']}) must be text{may}, got {_short(content)}."
        )
    for part in content:
        well_formed = isinstance(part, Mapping) and isinstance(part.get("text"), str)
        if not well_formed or part.get("type") not in PART_TYPES:
            raise ValueError(
                f"a part of message {number} must be {{'type': {' | '.join(PART_TYPES)}, 'text': text}}, got "
                f"{_short(part)}."
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."

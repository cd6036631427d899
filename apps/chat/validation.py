"""What a client may ask for: every field checked, and every refusal a sentence that says what to change."""

import difflib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpt_core.generate import Sampling

MOST_BYTES = 1 << 20
MOST_MESSAGES, MOST_CHARACTERS, MOST_CHARACTERS_IN_ALL = 500, 8_000, 32_000
MOST_TOKENS, MOST_SAMPLES, MOST_STOPS, MOST_STOP_CHARACTERS = 4096, 8, 4, 200
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
IGNORED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields of OpenAI's interface that change nothing about the answer."""
REFUSED: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": (None, {}),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
}
"""Fields of OpenAI's interface that would change the answer and are not served, with the values that change nothing."""


class Refused(ValueError):
    """A request that cannot be served, and why; `param` names the field, `status` is HTTP's."""

    def __init__(self, message: str, param: str | None = None, status: int = 400):
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class Defaults:
    """What a request that says nothing gets."""

    temperature: float = 0.9
    top_k: int = 200
    max_tokens: int = 256


@dataclass(frozen=True)
class Ask:
    """A request as it should be."""

    messages: Sequence[Mapping[str, str]]
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 256
    seed: int | None = None
    samples: int = 1
    stop: tuple[str, ...] = ()
    stream: bool = False
    model: str | None = None
    evict: bool = False
    """Leave out the oldest turns where the conversation does not fit the context."""
    left_out: int = 0
    """The oldest messages, of turns beyond what is read, that `messages` lacks already; only with `evict`."""
    positions: bool = False
    """Begin the stream at once, and tell the place in the queue."""
    include_usage: bool = False


def parse_json(body: bytes) -> dict[str, Any]:
    """The object in a request's body. Refused for anything else."""
    try:
        content = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise Refused("the body is nested too deeply") from None
    except ValueError as error:  # of the syntax, of the encoding, of a number with thousands of digits
        raise Refused(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"the body must be a JSON object, got {_short(content)}")
    return content


def parse_ask(body: Mapping[str, Any], defaults: Defaults) -> Ask:
    """The request in an object of OpenAI's form; ours besides: top_k, repetition_penalty, evict. Raises Refused."""
    known = {"messages", "model", "temperature", "top_k", "top_p", "repetition_penalty", "max_tokens", "seed", "n"}
    known |= {"max_completion_tokens", "stop", "stream", "stream_options", "parallel_tool_calls", "evict"}
    check_fields(body, known | IGNORED | REFUSED.keys())
    for name, harmless in REFUSED.items():
        if name in body and body[name] not in harmless:
            raise Refused(f"{name} is not served here; leave it out", name)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refused(f"stream_options must be an object, got {_short(options)}", "stream_options")
    options = options or {}
    sampling, evict = parse_sampling(body, defaults), truth(body, "evict")
    messages = parse_messages(body.get("messages"), evict)
    most = "max_tokens" if body.get("max_tokens") is not None else "max_completion_tokens"
    return Ask(
        messages,
        sampling,
        max_tokens=whole(body, most, 1, MOST_TOKENS, defaults.max_tokens),
        seed=None if body.get("seed") is None else whole(body, "seed", -(2**63), 2**63 - 1, 0),
        samples=whole(body, "n", 1, MOST_SAMPLES, 1),
        stop=_stops(body.get("stop")),
        stream=truth(body, "stream"),
        model=None if body.get("model") is None else text(body, "model", 1000),
        evict=evict,
        left_out=len(body["messages"]) - len(messages),
        positions=truth(options, "include_position"),
        include_usage=truth(options, "include_usage"),
    )


def parse_sampling(body: Mapping[str, Any], defaults: Defaults) -> Sampling:
    top_k = whole(body, "top_k", 0, 200, defaults.top_k)
    return Sampling(
        temperature=number(body, "temperature", 0, 2, defaults.temperature),
        top_k=top_k or None,
        top_p=number(body, "top_p", 0, 1, 1.0) or 1e-9,
        repetition_penalty=number(body, "repetition_penalty", 0.1, 10, 1.0),
    )


def parse_messages(messages: Any, evict: bool = False) -> list[dict[str, str]]:
    """[{role, content}]: at most one of the system first, then user and assistant in turn, the user last.

    evict: of more messages or characters than are read, the newest turns, and the system's message.
    """
    if not isinstance(messages, list) or not messages or (len(messages) > MOST_MESSAGES and not evict):
        got = f"{len(messages)} of them" if isinstance(messages, list) else _short(messages)
        raise Refused(f"messages must be a list of 1 to {MOST_MESSAGES}, got {got}", "messages")
    parsed = [_message(number, message) for number, message in enumerate(messages)]
    first = int(parsed[0]["role"] == "system")
    for number, message in enumerate(parsed[first:]):
        expected = ("user", "assistant")[number % 2]
        if message["role"] != expected:
            raise Refused(
                f"message {first + number} is of {message['role']!r}, expected {expected!r}: after at most one of the "
                "system come user and assistant in turn, the user first",
                "messages",
            )
    if parsed[-1]["role"] != "user":
        raise Refused("the last message must be the user's: it is the one that gets an answer", "messages")
    sizes, begin = [len(message["content"]) for message in parsed], first
    total = sum(sizes)
    while evict and (total > MOST_CHARACTERS_IN_ALL or len(sizes) - begin > MOST_MESSAGES) and begin + 2 < len(sizes):
        total -= sum(sizes[begin : begin + 2])  # a question and its answer
        begin += 2
    if total > MOST_CHARACTERS_IN_ALL:
        raise Refused(
            f"the messages have {total} characters in all, at most {MOST_CHARACTERS_IN_ALL} are served", "messages"
        )
    return parsed[:first] + parsed[begin:]


def check_text(content: str, what: str, most: int, param: str, may_be_empty: bool = False) -> str:
    """The text, if it is not empty or blank, not too long, and Unicode."""
    if not content.strip() and not may_be_empty:
        raise Refused(f"{what} is empty", param)
    if len(content) > most:
        raise Refused(f"{what} has {len(content)} characters, at most {most} are served", param)
    if not is_unicode(content):
        raise Refused(f"{what} holds half of a surrogate pair, which is no Unicode text", param)
    return content


def is_unicode(text: str) -> bool:
    """Whether it can be encoded: JSON, and names of files, may hold halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_fields(body: Mapping[str, Any], known: Collection[str]) -> None:
    """Refused for a field that is not known, with the nearest one that is."""
    for name in body:
        if name not in known:
            close = difflib.get_close_matches(name[:100], known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Refused(f"there is no field {_short(name)}{hint}", name[:100])


def number(body: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not _within(value, low, high):
        raise Refused(f"{name} must be a number from {low:g} to {high:g}, got {_short(value)}", name)
    return float(value)


def whole(body: Mapping[str, Any], name: str, low: int, high: int, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise Refused(f"{name} must be a whole number from {low} to {high}, got {_short(value)}", name)
    return value


def truth(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{name} must be true or false, got {_short(value)}", name)
    return bool(value)


def text(body: Mapping[str, Any], name: str, most: int = MOST_CHARACTERS) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise Refused(f"{name} must be a text, got {_short(value)}", name)
    return check_text(value, name, most, name)


def _message(number: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Refused(f"message {number} must be an object with role and content, got {_short(message)}", "messages")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Refused(f"message {number} has the role {_short(role)}; there are system, user and assistant", "messages")
    content = message.get("content")
    if isinstance(content, list):  # OpenAI's parts, of which only text is served
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = "".join(parts) if all(isinstance(part, str) for part in parts) else None  # ty: ignore[no-matching-overload]
    if not isinstance(content, str):
        raise Refused(f"the content of message {number} must be text, got {_short(message.get('content'))}", "messages")
    answer = role == "assistant"  # may have been stopped before its first word; its length was max_tokens' to bound
    most = MOST_BYTES if answer else MOST_CHARACTERS
    return {"role": ROLES[role], "content": check_text(content, f"message {number}", most, "messages", answer)}


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise Refused(f"stop must be a text or a list of at most {MOST_STOPS}, got {_short(value)}", "stop")
    for stop in stops:
        if not isinstance(stop, str) or not 1 <= len(stop) <= MOST_STOP_CHARACTERS:
            raise Refused(f"a stop text has 1 to {MOST_STOP_CHARACTERS} characters, got {_short(stop)}", "stop")
        check_text(stop, "a stop text", MOST_STOP_CHARACTERS, "stop", may_be_empty=True)
    return tuple(stops)


def _within(value: float, low: float, high: float) -> bool:
    return not (isinstance(value, float) and math.isnan(value)) and low <= value <= high


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _short(value: Any) -> str:
    try:
        shown = repr(value)
    except ValueError:  # a whole number with thousands of digits
        return "a number of thousands of digits"
    shown = shown.encode("utf-8", "backslashreplace").decode()  # an error message can be sent as it is
    return shown if len(shown) <= 80 else shown[:77] + "..."

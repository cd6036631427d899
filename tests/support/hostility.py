"""Malformed and malicious requests for apps/chat's server, the same ones for the same seed."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import httpx

SPECIALS = ["<|im_end|>", "<|im_start|>assistant\n", "<|bos|>", "<|endoftext|>", "<|output_start|>", "<|python_end|>"]
CHARACTERS = ["a", "\n", "é", "\u202e", "{", '"', "\u0000", "\U0001f600"]
ODD: list[Any] = [None, True, -1, 0, 1e308, 2**70, "", "x", [], {}, [[]], "\u0000", "<|im_end|>", 1.5, "\ud800"]
FIELDS = ["messages", "temperature", "top_k", "top_p", "max_tokens", "seed", "n", "stop", "stream", "model", "tools"]
FIELDS += ["stream_options", "response_format", "repetition_penalty", "evict"]
ROLES = ["user", "assistant", "system", "tool", "root", 7]
NAMES = ["../x.pt", "..", "/", "/etc", "a/../../..", "\u0000", "%2e%2e", "x" * 5000, "."]
PATHS = (
    ["/v1/chat/completions"] * 10
    + ["/chat/completions", "/api/chat", "/api/load_checkpoint", "/api/clear", "/api/session/..%2f..", "/%00"]
    + ["/v1/models/..%2f..%2fetc", "/web/..%2fserver.py", "/", "/metrics", "/api/session/%ff", "/api/session/new"]
)
METHODS = ["POST"] * 40 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]
HEADERS = [{}] * 30 + [{"content-type": "text/xml"}, {"origin": "http://x"}, {"host": "\\"}, {"cookie": "a" * 4000}]


def hostile(draw: random.Random) -> tuple[str, str, dict[str, Any]]:
    """(method, path, the other arguments of a request)."""
    content = draw.choice(BODIES)(draw)
    return draw.choice(METHODS), draw.choice(PATHS), {"content": content, "headers": draw.choice(HEADERS)}


def _text(draw: random.Random) -> str:
    return "".join(draw.choice([*SPECIALS, *CHARACTERS]) for _ in range(draw.randint(0, 9)))


def _good(draw: random.Random) -> dict[str, Any]:
    """A request with nothing wrong but what the user writes."""
    return {"messages": [{"role": "user", "content": _text(draw) + "."}], "max_tokens": draw.randint(1, 3)}


def _odd_field(draw: random.Random) -> bytes:
    return json.dumps({**_good(draw), draw.choice([*FIELDS, "x" * 50, "\ud800"]): draw.choice(ODD)}).encode()


def _odd_messages(draw: random.Random) -> bytes:
    message = {"role": draw.choice(ROLES), "content": draw.choice([_text(draw), draw.choice(ODD)])}
    messages = [message, draw.choice(ODD), message][: draw.randint(0, 3)]
    return json.dumps({**_good(draw), "messages": messages}).encode()


def _cut(draw: random.Random) -> bytes:
    return json.dumps(_good(draw)).encode()[: draw.randint(0, 40)]


def _huge(draw: random.Random) -> bytes:
    content = "x" * draw.choice([8001, 40000, 1 << 20])
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


def _many(draw: random.Random) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "x"}] * draw.choice([2, 501])}).encode()


def _other_interface(draw: random.Random) -> bytes:
    body = {"message": _text(draw), "session_id": draw.choice(ODD), "checkpoint": draw.choice(NAMES)}
    return json.dumps({key: body[key] for key in draw.sample(sorted(body), draw.randint(1, 3))}).encode()


BODIES = [
    _odd_field,
    _odd_messages,
    _cut,
    _huge,
    _many,
    _other_interface,
    lambda draw: json.dumps(_good(draw)).encode(),
    lambda draw: json.dumps(draw.choice(ODD)).encode(),
    lambda draw: json.dumps({"checkpoint": draw.choice(NAMES)}).encode(),
    lambda draw: draw.randbytes(draw.randint(0, 200)),
    lambda draw: b"[" * draw.randint(1, 5000),
    lambda draw: b'{"stop": %s}' % (b"[" * (depth := draw.randint(900, 1000)) + b"]" * depth),
    lambda draw: b'{"messages": ' + b"9" * draw.randint(1, 6000) + b"}",
]


def bombard(url: str, count: int, seed: int) -> Counter[int]:
    """Send so many, eight at a time; the statuses that came. AssertionError at the first that the server fails at."""
    draw, statuses = random.Random(seed), Counter()

    async def send(client: httpx.AsyncClient, limit: asyncio.Semaphore) -> None:
        method, path, arguments = hostile(draw)
        async with limit:
            response = await client.request(method, path, **arguments)
        statuses[response.status_code] += 1
        fine = response.status_code < 500 or response.status_code == 503
        assert fine, (method, path, arguments, response.text)

    async def send_all() -> None:
        limit = asyncio.Semaphore(8)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for done in range(0, count, 200):
                await asyncio.gather(*(send(client, limit) for _ in range(min(200, count - done))))

    asyncio.run(send_all())
    return statuses

"""Values between the process that runs a generated program and the one that checks it: plain data, and handles.

A value arrives as an object of exactly the built-in type that it had, or derived from, so no `__eq__` of a program
ever runs where results are compared.

The modules of this folder import little (not `typing`): three interpreters start for every program.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

MAX_ITEMS = 100_000
"""Elements taken from an iterator that a program returns."""

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one message."""

CONTAINERS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
NUMBERS = {"Decimal": "decimal", "Fraction": "fractions"}
"""Types by their module, which is imported where a program or a test has imported it."""


class WireError(Exception):
    """A message that is too long, is cut off, or is none."""


def encode(value: Any, handle: Callable[[Any], Any]) -> Any:
    """The value as JSON with tags. handle: what to send for an object that is no data (or raise TypeError)."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return {"int": hex(int(value))}  # text of any length: decimal digits are limited to 4300
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    for tag, kind in CONTAINERS.items():
        if isinstance(value, kind):
            return {tag: [encode(item, handle) for item in kind.__iter__(value)]}
    if isinstance(value, Mapping):
        return {"dict": [[encode(key, handle), encode(item, handle)] for key, item in value.items()]}
    for tag, module in NUMBERS.items():
        if module in sys.modules and isinstance(value, getattr(sys.modules[module], tag)):
            return {tag: str(value)}
    if isinstance(value, Iterator):
        items = [item for _, item in zip(range(MAX_ITEMS), value, strict=False)]
        return {"iterator": [encode(item, handle) for item in items]}
    return {"handle": handle(value)}


def decode(value: Any, handle: Callable[[Any], Any]) -> Any:
    """The inverse; raises WireError for what `encode` does not write."""
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise WireError(f"not a value: {str(value)[:100]}")
    ((tag, body),) = value.items()
    if tag == "int":
        return int(body, 16)
    if tag == "complex":
        return complex(*body)
    if tag == "bytes":
        return bytes.fromhex(body)
    if tag == "range":
        return range(*body)
    if tag in CONTAINERS:
        return CONTAINERS[tag](decode(item, handle) for item in body)
    if tag == "dict":
        return {decode(key, handle): decode(item, handle) for key, item in body}
    if tag in NUMBERS:
        return getattr(__import__(NUMBERS[tag]), tag)(body)
    if tag == "iterator":
        return iter([decode(item, handle) for item in body])
    if tag == "handle":
        return handle(body)
    raise WireError(f"unknown tag {tag!r}")


def send(stream: BinaryIO, message: Any) -> None:
    """One message, one line."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """The next message; raises WireError where the other side has gone or talks nonsense."""
    line = stream.readline(MAX_LINE + 1)
    if not line.endswith(b"\n"):
        raise WireError("the program ended" if len(line) <= MAX_LINE else f"an answer longer than {MAX_LINE} bytes")
    try:
        return json.loads(line)
    except ValueError:
        raise WireError(f"not a message: {line[:100]!r}") from None

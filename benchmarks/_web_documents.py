"""Documents like those of OpenWebText, made from text that every machine has: lengths and shape of web pages."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from gpt_data.preparation.installed import docstrings
from gpt_data.preparation.sources import pydoc_topics, stdlib_files

MEDIAN_BYTES, SPREAD = 3000, 0.95
"""Of a log-normal length: about 4.9 kB on average, as OpenWebText has."""


def paragraphs() -> list[str]:
    """Prose: docstrings of the library and the language reference, in paragraphs."""
    texts = [docstrings(path) for path in sorted(stdlib_files()[1])]
    texts += [document.text or "" for document in pydoc_topics()]
    return [p for text in texts for p in text.split("\n\n") if 80 < len(p) < 2000 and p.isascii()]


def documents(size: int, pool: list[str], seed: int = 0) -> Iterator[str]:
    """Distinct documents of `size` bytes in all."""
    draw = random.Random(seed)
    number = 0
    while size > 0:
        wanted = int(draw.lognormvariate(0, SPREAD) * MEDIAN_BYTES)
        text = f"Page {seed}.{number}"
        while len(text) < wanted:
            text += "\n\n" + draw.choice(pool)
        yield text
        size, number = size - len(text), number + 1


def write_lines(path: Path, size: int, pool: list[str]) -> int:
    """A jsonl file of about `size` bytes; returns its rows. Large files repeat 100 MB, each row with a new number."""
    bodies = [json.dumps(text) for text in documents(min(size, 100_000_000), pool)]
    written = number = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            line = f'{{"id": {number}, "text": "{number} {bodies[number % len(bodies)][1:]}}}\n'
            file.write(line)
            written, number = written + len(line), number + 1
    return number

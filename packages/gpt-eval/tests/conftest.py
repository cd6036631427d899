"""A model that needs no library and no time, and a small bundle: for the tests of everything around scoring."""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from gpt_eval.model import Scored

sys.path.insert(0, str(Path(__file__).parent))  # of the modules beside the tests


class HashModel:
    """Bytes are tokens; a token's log-probability is a hash of it and of the eight tokens before it."""

    name, max_length, eot_id, bos_id, prefix_space, tokenizer_hash = "hash", 4096, 0, None, True, "bytes"
    supports = frozenset({"score", "generate"})

    def __init__(self, seed=0, fail_after=None):
        self.seed, self.fail_after, self.calls = seed, fail_after, []

    def encode(self, text, *, specials=False):
        return list(text.encode())

    def decode(self, ids):
        return bytes(ids).decode(errors="replace")

    def score(self, requests):
        self.calls.append(len(requests))
        if self.fail_after is not None and len(self.calls) > self.fail_after:
            raise KeyboardInterrupt
        return [self._score(list(context), list(continuation)) for context, continuation in requests]

    def _score(self, context, continuation):
        assert context and continuation
        values = []
        for place in range(len(context), len(context) + len(continuation)):
            near = bytes((context + continuation)[max(0, place - 8) : place + 1])
            values.append(-(zlib.crc32(near, self.seed) % 1000 + 1) / 100)
        logprobs = np.array(values, dtype=np.float32)
        return Scored(logprobs, logprobs > -5.0)

    def chat_ids(self, messages):
        raise NotImplementedError

    def generate(self, prompts, *, max_new_tokens, stops=(), n=1, **sampling):
        self.calls.append(len(prompts))
        return [[f"{zlib.crc32(bytes(prompt), self.seed) % 20}"] * n for prompt in prompts]


@pytest.fixture
def hash_model():
    """The class: `hash_model(seed=1)` is another model of the same name."""
    return HashModel


def choice_row(i):
    numbers = [str((i * 7 + k * k * 3) % 50 + k) for k in range(4)]
    return {"query": f"Question {i}: which number?", "choices": [f"number {n}" for n in numbers], "gold": i % 4}


@pytest.fixture
def bundle_folder(tmp_path):
    """Two tasks of 23 and 11 rows, with an index."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    files = {
        "pick.jsonl": [choice_row(i) for i in range(23)],
        "say.jsonl": [{"context": f"{i} and {i} is", "continuation": f"{2 * i}"} for i in range(11)],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "index.yaml").write_text(
        "tasks:\n"
        "  - {name: pick, file: pick.jsonl, type: mc, shots: 2, base: 0.25, category: choosing}\n"
        "  - {name: say, file: say.jsonl, type: lm, shots: 0, base: 0, category: saying}\n"
    )
    return folder

"""A model of words: GPT-2's way of cutting text, ids by hash, and a recurrent net in float64 that knows it all."""

import re
import zlib

import numpy as np

from gpt_eval.model import Scored

PIECES = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
"""Words, numbers and marks with the space before them; whitespace before a word leaves it one space, as in GPT-2."""

SIZE = 1024


class WordModel:
    name, max_length, tokenizer_hash, prefix_space = "words", 4096, "words", True
    supports = frozenset({"score", "generate"})

    def __init__(self, *, max_length=4096, bos_id=None, bos_added=False, eot_id=0, prefix_space=True, seed=0):
        self.max_length, self.bos_id, self.eot_id = max_length, bos_id, eot_id
        self.bos_added, self.prefix_space = bos_added, prefix_space
        self.words, self.ids = {0: "<|end|>", 1: "<|start|>"}, {}
        rng = np.random.default_rng(seed)
        self.inputs, self.outputs = rng.normal(size=(SIZE, 12)), rng.normal(size=(12, SIZE)) * 2
        self.turn = rng.normal(size=(12, 12)) / 4

    def pieces(self, text):
        return PIECES.findall(text) if self.prefix_space else re.findall(r"\S+|\s", text)

    def encode(self, text, *, specials=False):
        ids = [self._id(piece) for piece in self.pieces(text)]
        return [self.bos_id, *ids] if specials and self.bos_added else ids

    def _id(self, piece):
        if piece not in self.ids:
            place = zlib.crc32(piece.encode()) % SIZE
            while place in self.words:
                place = (place + 1) % SIZE
            self.ids[piece], self.words[place] = place, piece
        return self.ids[piece]

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def log_softmax(self, ids, start=0):
        """(T - start, SIZE) float64: ln P(next token | ids[:t + 1]) for t from `start`."""
        states = [np.zeros(12)]
        for i in ids:
            states.append(np.tanh(self.inputs[i] + states[-1] @ self.turn))
        logits = np.array(states[1 + start :]) @ self.outputs
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def score(self, requests):
        found = []
        for context, continuation in requests:
            assert len(context) and len(continuation) and len(context) + len(continuation) - 1 <= self.max_length
            rows = self.log_softmax([*context, *continuation[:-1]], len(context) - 1)
            chosen = rows[np.arange(len(continuation)), list(continuation)]
            found.append(Scored(chosen.astype(np.float32), rows.argmax(1) == np.array(continuation)))
        return found


class Uniform(WordModel):
    """Finds all tokens equally likely."""

    def score(self, requests):
        return [Scored(np.full(len(ids), -3.0, np.float32), np.zeros(len(ids), bool)) for _, ids in requests]


class Listed(WordModel):
    """Gives the listed log-probabilities to the continuations, in order."""

    def __init__(self, *values):
        super().__init__()
        self.values = list(values)

    def score(self, requests):
        values = [np.array(self.values.pop(0), np.float32) for _ in requests]
        return [Scored(value, np.ones(len(value), bool)) for value in values]

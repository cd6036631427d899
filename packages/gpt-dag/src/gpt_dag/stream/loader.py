"""The stream of expressions as a data factory of gpt-core's training loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt_dag.parse import parse
from gpt_dag.plans import Plans
from gpt_dag.stream.bpe import digit_tokenizer, in_bpe
from gpt_dag.stream.checks import fingerprint
from gpt_dag.stream.law import STYLES, Law
from gpt_dag.stream.layout import Layout
from gpt_dag.stream.sample import sample
from gpt_dag.tags import IGNORED
from gpt_dag.tokens import WordTokenizer
from gpt_data import Batch
from gpt_data.loaders.base import Rows
from gpt_data.loaders.counted import CountedLoader, WholeEpochs
from gpt_data.loaders.prefetch import prefetched
from gpt_data.loaders.splits import Splits
from gpt_data.tokenizers import BPETokenizer

VERSION = 1
"""Changes when any example of the stream does."""
BLOCK = 2048
"""Examples drawn at once: enough that torch's overhead does not count, few enough for a CPU's caches."""
EPOCH = 1 << 20
"""Examples of what is called an epoch of the endless training stream."""
TOKENIZERS = ("words", "gpt2")
GPT2_PER_WORD = 2
"""No word or symbol is more tokens of GPT-2, but for the first of a text, which may be one more."""
MULTIPLE = 8
"""Batches are trimmed to a width of so many tokens, or twice, three times, ... as many."""


def expressions(
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    *,
    min_ops: int = 0,
    max_ops: int = 6,
    max_digits: int = 4,
    max_decimals: int = 4,
    styles: Sequence[str] = tuple(STYLES),
    shape: str = "random",
    tokenizer: str = "words",
    p_negative: float = 0.25,
    p_percent: float = 0.1,
    p_zero: float = 0.02,
    p_redundant: float = 0.02,
    held_out: int = 2048,
    exclude: str | None = None,
    trim: bool = True,
    device: str = "cpu",
    prefetch: int = 2,
) -> Splits:
    """Endless worded and symbolic expressions with the tags of every token: inputs (B, T), targets (B, T, 6).

    The examples are `Law`'s; those of more than `context_length` tokens are drawn anew. Batches are trimmed to their
    longest example, rounded up to a multiple of 8 (trim=False: T is always `context_length`, and the device is waited
    for less often). Example i of a split is a function of (law, seed, i); validation and test are the first `held_out`
    of theirs whatever the seed, so that runs compare. No expression is in two splits, however it is written.

    tokenizer: "words" (`WordTokenizer`, padded with its id 0), or "gpt2": GPT-2's vocabulary with every digit a token,
    padded with 0 (its "!"); there, examples of more than half of `context_length` words are drawn anew, and a slower
    loop over texts, on the CPU, makes the ids.

    exclude: a JSONL file whose `symbolic` expressions never occur. device: where batches are made; on a GPU without
    `prefetch`, which is a thread's.
    """
    law = Law(
        min_ops, max_ops, max_digits, max_decimals, tuple(styles), shape, p_negative, p_percent, p_zero, p_redundant
    )
    if held_out < 1:
        raise ValueError(f"held_out is {held_out}, expected how many examples to validate with.")
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer is {tokenizer!r}, expected one of {', '.join(TOKENIZERS)}.")
    corpus = ExpressionCorpus(law, context_length, held_out, exclude, device, tokenizer)
    shape_ = (context_length, device_batch_size, rank, world_size)
    train = TrainExpressions(corpus, "train", *shape_, seed=seed, trim=trim)
    val, test = (HeldOutExpressions(corpus, split, *shape_, trim=trim) for split in ("val", "test"))
    ahead = 0 if torch.device(device).type == "cuda" else prefetch
    return Splits(train=prefetched(train, ahead), val=val, test=test, dataset=corpus)


@dataclass(frozen=True)
class ExpressionCorpus:
    """What stands for a dataset's folder."""

    law: Law
    context_length: int
    held_out: int
    exclude: str | None = None
    device: str = "cpu"
    tokenizer: str = "words"

    path: Path | None = None

    @property
    def name(self) -> str:
        law = self.law
        return f"expressions of {law.min_ops} to {law.max_ops} operations, {law.shape}, {', '.join(law.styles)}"

    @property
    def vocab_size(self) -> int:
        return self.load_tokenizer().vocab_size

    @cached_property
    def excluded(self) -> Tensor | None:
        """Fingerprints."""
        if self.exclude is None:
            return None
        lines = Path(self.exclude).read_text(encoding="utf-8-sig").split("\n")
        plans = Plans.from_expressions([parse(json.loads(line)["symbolic"]) for line in lines if line.strip()])
        return fingerprint(plans).to(self.device)

    @cached_property
    def digest(self) -> str:
        """Of everything that an example depends on but the seed."""
        excluded = [] if self.excluded is None else sorted(self.excluded.tolist())
        content = [VERSION, asdict(self.law), self.context_length, self.held_out, self.tokenizer, excluded]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def load_tokenizer(self) -> WordTokenizer | BPETokenizer:
        return WordTokenizer() if self.tokenizer == "words" else digit_tokenizer()

    def draw(self, numbers: Tensor, split: str, seed: int, trim: bool) -> Layout:
        """The examples with these numbers (B,), as wide as the longest of them (rounded up) or as the context."""
        words = self.tokenizer == "words"
        width = self.context_length if words else max(1, (self.context_length - 1) // GPT2_PER_WORD)
        options = {"width": width, "exclude": self.excluded, "device": self.device}
        drawn = sample(self.law, numbers, seed, split=split, **options)
        if not words:
            layout = in_bpe(drawn, digit_tokenizer())
            longest = int(layout.length.max())
            if longest > self.context_length:
                raise ValueError(
                    f"context_length is {self.context_length}, too short for GPT-2's tokens; set at least 8"
                )
            width = min(self.context_length, _rounded(longest)) if trim else self.context_length
            pad = (0, width - layout.ids.shape[1])
            ids, tags = F.pad(layout.ids, pad), F.pad(layout.tags, (0, 0, *pad), value=IGNORED)
            return Layout(ids.to(self.device), tags.to(self.device), layout.length, layout.source)
        return drawn.lay_out(min(width, _rounded(int(drawn.parts.length.max()))) if trim else width)


class TrainExpressions(CountedLoader):
    """Endless examples of one split. B = device_batch_size; ranks take turns with batches, so the stream as a whole is
    the same for any number of them."""

    def __init__(
        self,
        corpus: ExpressionCorpus,
        split: str,
        context_length: int,
        device_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        trim: bool = True,
    ) -> None:
        super().__init__(context_length, device_batch_size, rank, world_size, seed)
        self.corpus, self.split, self.trim = corpus, split, trim
        self._number, self._block = -1, None  # of the block in memory

    @property
    def vocab_size(self) -> int:
        return self.corpus.vocab_size

    @property
    def where(self) -> str:
        return f"{self.corpus.name}, split {self.split!r}"

    @property
    def batches_per_epoch(self) -> int:
        """An epoch of an endless stream is 2^20 examples of all ranks together."""
        return -(-EPOCH // self._rows_per_batch)

    def identity(self) -> dict[str, Any]:
        return {"dataset": self.corpus.digest, "split": self.split, **super().identity()}

    def _make(self, batch: int) -> Rows:
        raise NotImplementedError("these batches have six targets per token; take them with next()")

    def __next__(self) -> Batch:
        batch = self.batch(self._batches)
        self._batches += 1
        return batch

    def batch(self, number: int) -> Batch:
        """Batch `number` of this rank; the state does not change."""
        number, place = divmod(number, self._batches_per_block)
        if number != self._number:
            self._number, self._block = number, self._draw(number)
        assert self._block is not None
        B = self.device_batch_size
        rows = slice(place * B, place * B + B)
        width = self._block.ids.shape[1]
        if self.trim:
            width = min(self.context_length, _rounded(max(self._block.lengths[rows])))
        return Batch(self._block.ids[rows, :width].contiguous(), self._block.tags[rows, :width].contiguous())

    @property
    def _batches_per_block(self) -> int:
        return max(1, BLOCK // self.device_batch_size)

    def _draw(self, block: int) -> _Block:
        first = block * self._batches_per_block
        numbers = np.concatenate([self._numbers(first + i) for i in range(self._batches_per_block)])
        examples = torch.from_numpy(self._examples(numbers))
        layout = self.corpus.draw(examples, self.split, self.seed, self.trim)
        return _Block(layout.ids, layout.tags, layout.length.tolist() if self.trim else [])

    def _examples(self, numbers: np.ndarray) -> np.ndarray:
        """Which examples the rows with these numbers are."""
        return numbers


class HeldOutExpressions(WholeEpochs, TrainExpressions):
    """The first `held_out` examples of a split, over and over, drawn once and kept."""

    @property
    def epoch_rows(self) -> int:
        return self.corpus.held_out

    @property
    def _batches_per_block(self) -> int:
        return self.batches_per_epoch

    def batch(self, number: int) -> Batch:
        """Rows that stand for no example of the epoch have no targets."""
        batch = super().batch(number % self.batches_per_epoch)
        counted = torch.from_numpy(self._numbers(number) < self.epoch_rows).to(batch.targets.device)
        return Batch(batch.inputs, torch.where(counted[:, None, None], batch.targets, IGNORED))

    def _examples(self, numbers: np.ndarray) -> np.ndarray:
        return numbers % self.epoch_rows


@dataclass(frozen=True)
class _Block:
    ids: Tensor
    """(rows, T)"""
    tags: Tensor
    """(rows, T, 6)"""
    lengths: list[int]
    """Tokens of every row; none if batches are not trimmed."""


def _rounded(width: int) -> int:
    return -(-width // MULTIPLE) * MULTIPLE

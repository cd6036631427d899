""" "expression = answer" rows for a language model: five times two point five = 12.5

B rows, T context length.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt_dag.decimal_text import decimal_text
from gpt_dag.plans import Plans
from gpt_dag.stream.bits import key_of
from gpt_dag.stream.law import STYLES, Law
from gpt_dag.stream.sample import sample
from gpt_dag.tokens import ID, WordTokenizer
from gpt_data.loaders.base import Rows
from gpt_data.loaders.counted import CountedLoader, WholeEpochs
from gpt_data.loaders.prefetch import prefetched
from gpt_data.loaders.splits import Splits

VERSION = 1
"""Of the rows that a law and a seed stand for."""
ATTEMPTS = 12
HOPELESS = 64
"""When none of so many examples fits, no more are drawn."""
HELD_OUT_SEED = 20_250_711
"""Validation and test are the same rows for every seed of the training."""
TRIM = 8
"""Batches are as wide as their longest row, rounded up to this."""


@dataclass(frozen=True)
class AnswerRows:
    """What the rows are: their law, and how answers are written."""

    law: Law
    answer_decimals: int
    context_length: int

    def draw(self, rows: int, key: int, split: str) -> tuple[np.ndarray, Plans]:
        """(rows, T+1) int64 ids and the plans behind them: of the examples whose answers fit, the first."""
        ids = np.empty((0, self.context_length + 1), np.int64)
        plans: list[Plans] = []
        for attempt in range(ATTEMPTS):
            drawn, kept = self._attempt(rows, key_of(key, attempt), split)
            wanted = slice(rows - len(ids))
            ids = np.concatenate([ids, drawn[wanted]])
            plans.append(kept[wanted])
            if len(ids) == rows:
                return ids, Plans.cat(plans)
            if not len(ids) and rows * (attempt + 1) >= HOPELESS:
                break
        raise ValueError(
            f"rows of {self.context_length} tokens are too short for {self.law}: of {rows * (attempt + 1)} examples "
            f"{len(ids)} fit. Set training.context_length higher, or max_ops lower."
        )

    def _attempt(self, rows: int, key: int, split: str) -> tuple[np.ndarray, Plans]:
        """Those of `rows` examples that fit."""
        T1 = self.context_length + 1
        drawn = sample(self.law, rows, key, split=split)
        expressions, lengths = drawn.layout.ids.numpy(), drawn.layout.length.tolist()
        ids, kept = np.full((rows, T1), WordTokenizer.pad_id, np.int64), []
        for row, (length, value) in enumerate(zip(lengths, drawn.plans.fractions(), strict=True)):
            assert value is not None, "the sampler draws no division by zero"
            answer = [ID[character] for character in decimal_text(value, self.answer_decimals)]
            tail = [WordTokenizer.equals_id, *answer, WordTokenizer.eot_id]
            if length + len(tail) <= T1:
                ids[len(kept), :length] = expressions[row, :length]
                ids[len(kept), length : length + len(tail)] = tail
                kept.append(row)
        return ids[: len(kept)], drawn.plans[torch.tensor(kept, dtype=torch.int64)]


@dataclass(frozen=True)
class AnswerCorpus:
    """Stands for a dataset folder."""

    rows: AnswerRows
    held_out: int

    path: Path | None = None
    name: str = "answers"
    vocab_size: int = WordTokenizer.vocab_size

    @cached_property
    def digest(self) -> str:
        """Of what the rows are a function of, beside the seed."""
        return hashlib.sha256(repr((VERSION, asdict(self.rows), self.held_out)).encode()).hexdigest()

    def load_tokenizer(self) -> WordTokenizer:
        return WordTokenizer()


class Answers(CountedLoader):
    """An endless stream of new rows of the training split; batch i of a rank is a function of (seed, rank, i)."""

    def __init__(self, corpus: AnswerCorpus, *shape: int, seed: int, targets: str) -> None:
        super().__init__(*shape, seed=seed)
        self.corpus, self.targets = corpus, targets

    @property
    def vocab_size(self) -> int:
        return self.corpus.vocab_size

    @property
    def where(self) -> str:
        return "expressions with their answers"

    @property
    def batches_per_epoch(self) -> int:
        raise ValueError("this stream has no end, and so no epoch; set eval.eval_iters")

    def _make(self, batch: int) -> Rows:
        key = key_of(self.seed % 2**63, self.world_size, self.rank, batch)
        return with_targets(self.corpus.rows.draw(self.device_batch_size, key, "train")[0], self.targets)

    def identity(self) -> dict[str, Any]:
        """A batch depends on the rank, so a run resumes with the same batches on the same number of ranks only."""
        return {
            "dataset": self.corpus.digest,
            "targets": self.targets,
            "rows_per_batch": self._rows_per_batch,
            **super().identity(),
        }


class HeldOutAnswers(WholeEpochs, Answers):
    """A fixed set of rows of another split, in order."""

    def __init__(self, corpus: AnswerCorpus, split: str, *shape: int, targets: str) -> None:
        super().__init__(corpus, *shape, seed=0, targets=targets)
        self.split = split

    @property
    def epoch_rows(self) -> int:
        return self.corpus.held_out

    @cached_property
    def table(self) -> np.ndarray:
        """(held_out, T+1), drawn at the first use."""
        return self.corpus.rows.draw(self.corpus.held_out, HELD_OUT_SEED, self.split)[0]

    def _make(self, batch: int) -> Rows:
        return with_targets(self.table[self._numbers(batch) % len(self.table)], self.targets)

    def identity(self) -> dict[str, Any]:
        return {"split": self.split, **super().identity()}


def answers(
    context_length: int,
    device_batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 1337,
    *,
    min_ops: int = 0,
    max_ops: int = 4,
    max_digits: int = 2,
    max_decimals: int = 1,
    styles: tuple[str, ...] = tuple(STYLES),
    p_negative: float = 0.25,
    p_percent: float = 0.0,
    p_zero: float = 0.02,
    answer_decimals: int = 4,
    targets: str = "answer",
    held_out: int = 512,
    prefetch: int = 2,
) -> Splits:
    """Rows of one expression each, "=", its exact value rounded to `answer_decimals`, the end of the text, and padding.

    The law of expressions: see `Law`. targets: "answer" trains on what follows the "=", "all" on every token.
    held_out: rows of validation and of test each; their expressions never occur in training.
    """
    if targets not in ("answer", "all"):
        raise ValueError(f"targets is 'answer' or 'all', got {targets!r}")
    if held_out < 1 or answer_decimals < 0:
        raise ValueError(f"expected held_out >= 1 and answer_decimals >= 0, got {held_out} and {answer_decimals}")
    law = Law(
        min_ops=min_ops,
        max_ops=max_ops,
        max_digits=max_digits,
        max_decimals=max_decimals,
        styles=tuple(styles),
        p_negative=p_negative,
        p_percent=p_percent,
        p_zero=p_zero,
    )
    shape = (context_length, device_batch_size, rank, world_size)
    corpus = AnswerCorpus(AnswerRows(law, answer_decimals, context_length), held_out)
    train = Answers(corpus, *shape, seed=seed, targets=targets)
    val, test = (HeldOutAnswers(corpus, split, *shape, targets=targets) for split in ("val", "test"))
    return Splits(train=prefetched(train, prefetch), val=val, test=test, dataset=corpus)


def with_targets(ids: np.ndarray, targets: str) -> Rows:
    """(B, T+1) ids without the padding that all rows share, and the mask of what counts as a target."""
    longest = int((ids != WordTokenizer.pad_id).sum(1).max())
    ids = ids[:, : min(ids.shape[1], -(-(longest - 1) // TRIM) * TRIM + 1)]
    counted = ids != WordTokenizer.pad_id
    if targets == "answer":
        equals = (ids == WordTokenizer.equals_id).cumsum(1) > 0
        counted &= equals & (ids != WordTokenizer.equals_id)
    return Rows(ids, counted.astype(np.uint8))

"""Questions with a fixed number of answers: the most likely one is the model's. Rows: query, choices[], gold.

Protocols "foundry" and "core" compare mean log-probabilities per token, "harness" their sums (and reports acc_norm,
per character, and acc_bytes beside it). The first of equals wins.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gpt_eval.data.checks import check_choices, check_fields, check_gold
from gpt_eval.metrics import expected_calibration_error
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Item, ProtocolName, Record, Row, Task
from gpt_eval.types import _scored

NEEDS: frozenset[Capability] = frozenset({"score"})
SAME_LENGTH = "choices"


def check_row(row: Row, task: Task) -> str | None:
    """query, choices (at least two, none empty) and gold, the number of one of them."""
    return (
        check_fields(row, {"query": str, "choices": list, "gold": int}, task)
        or check_choices(row, "choices")
        or check_gold(row, "choices")
    )


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One request per choice."""
    return _scored.make_items("multiple_choice", task, rows, indices, model, protocol)


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 for the gold choice; further reductions of the same scores as metrics under "harness"."""
    return grade_choices(item, outputs, protocol, texts=item.detail["row"]["choices"])


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """Choices without a span of their own, and how well confidence matches accuracy."""
    return summarize_choices(records)


def grade_choices(
    item: Item, outputs: Sequence[Any], protocol: ProtocolName, texts: Sequence[str] | None = None
) -> Record:
    """The record of an item whose requests are its choices.

    texts: of the choices, for the normalisations by length; None where only the sum makes sense.
    """
    scores = _scored.choice_scores(item, outputs) if item.unscored is None else []
    if all(score is None for score in scores):
        reason = item.unscored or "no choice has a token of its own"
        return _scored.wrong(replace(item, unscored=reason), item.gold)
    sums = [-math.inf if score is None else score.sum for score in scores]
    means = [-math.inf if score is None else score.mean for score in scores]
    if max(sums) == -math.inf:
        return _scored.wrong(replace(item, unscored="the model calls every choice impossible"), item.gold)
    by_token = protocol != "harness"
    prediction = int(np.argmax(means if by_token else sums))
    metrics = {}
    if protocol == "harness" and texts is not None:
        metrics = {
            "acc_norm": float(_argmax_per(sums, [len(text) for text in texts]) == item.gold),
            "acc_bytes": float(_argmax_per(sums, [len(text.encode()) for text in texts]) == item.gold),
        }
    return Record(
        index=item.index,
        correct=float(prediction == item.gold),
        prediction=prediction,
        gold=item.gold,
        category=item.category,
        metrics=metrics,
        truncated=item.truncated,
        prompt_sha256=_scored.prompt_sha256(item),
        detail={
            "sum": [None if score is None else score.sum for score in scores],
            "mean": [None if score is None else score.mean for score in scores],
            "tokens": [0 if score is None else score.num_tokens for score in scores],
            "probability": [0.0 if score is None else _mean_probability(score) for score in scores],
        },
    )


def summarize_choices(records: Sequence[Record]) -> dict[str, Any]:
    """For `summarize` of every type with choices."""
    graded = [record for record in records if "probability" in record.detail]
    confidences, correct = [], []
    for record in graded:
        probabilities = record.detail["probability"]
        total = sum(probabilities)
        confidences.append(max(probabilities) / total if total > 0 else 1 / len(probabilities))
        correct.append(probabilities.index(max(probabilities)) == record.gold)
    return {
        "n_empty_spans": sum(record.detail["tokens"].count(0) for record in graded),
        "calibration_error": expected_calibration_error(confidences, correct),
    }


def _argmax_per(sums: Sequence[float], lengths: Sequence[int]) -> int:
    return int(np.argmax([total / length for total, length in zip(sums, lengths, strict=True)]))


def _mean_probability(score: Scored) -> float:
    return float(np.exp(score.logprobs.astype(np.float64)).mean())

"""Contexts to continue word by word: right if every token is the model's first choice. Rows: context, continuation."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from gpt_eval.data.checks import check_fields, check_text
from gpt_eval.metrics import bits_per_byte
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Item, ProtocolName, Record, Row, Task
from gpt_eval.types import _scored

NEEDS: frozenset[Capability] = frozenset({"score"})


def check_row(row: Row, task: Task) -> str | None:
    """A context, and a continuation that is not empty."""
    return check_fields(row, {"context": str, "continuation": str}, task) or check_text(row, "continuation")


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One request: the continuation. `detail["bytes"]` is the UTF-8 length of what is scored."""
    items = _scored.make_items("language_modeling", task, rows, indices, model, protocol)
    for item in items:
        item.detail["bytes"] = sum(len(model.decode(ids).encode()) for _, ids in item.requests)
    return items


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 if the whole continuation is greedy, 0 otherwise; no credit for parts."""
    if item.unscored is not None or not item.requests:
        return _scored.wrong(item, item.gold)
    (score,) = (_scored.checked(score, item) for score in cast("Sequence[Scored]", outputs))
    return Record(
        index=item.index,
        correct=float(score.is_greedy),
        prediction=score.is_greedy,
        gold=item.gold,
        category=item.category,
        truncated=item.truncated,
        prompt_sha256=_scored.prompt_sha256(item),
        detail={
            "sum": score.sum,
            "mean": score.mean,
            "tokens": score.num_tokens,
            "bytes": item.detail["bytes"],
            "greedy_tokens": int(np.count_nonzero(score.greedy)),
        },
    )


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """Bits per byte over all continuations, and the mean of -ln P of a continuation (the harness's log perplexity)."""
    sums = [record.detail["sum"] for record in records if "sum" in record.detail]
    n_bytes = sum(record.detail["bytes"] for record in records if "sum" in record.detail)
    if not sums or not n_bytes:
        return {}
    total = math.fsum(sums)
    return {"bits_per_byte": bits_per_byte(min(total, 0.0), n_bytes), "log_perplexity": -total / len(sums)}

"""What the types that score continuations have in common: a row becomes requests by a protocol's rules."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpt_eval.errors import EvaluationError
from gpt_eval.fewshot import sampler
from gpt_eval.model import LanguageModel, Scored
from gpt_eval.protocols import conventions
from gpt_eval.protocols.asked import Asked
from gpt_eval.task import Item, ProtocolName, Record, Row, Task

Render = Callable[[Task, Row, Sequence[Row], LanguageModel], Asked]


def make_items(
    render_name: str,
    task: Task,
    rows: Sequence[Row],
    indices: Sequence[int],
    model: LanguageModel,
    protocol: ProtocolName,
) -> list[Item]:
    """Items with requests; their `detail` maps each choice to its request (`Asked.spans`).

    render_name: the function of the protocol's module. The shots of all rows are drawn in every call, so one call per
    task is cheapest. Errors name the row.
    """
    render: Render = getattr(conventions(protocol), render_name)
    shots = sampler(task, rows, protocol)
    items = []
    for index in indices:
        row = rows[index]
        try:
            asked = render(task, row, [rows[shot] for shot in shots(index)], model)
        except EvaluationError as error:
            raise type(error)(f"{task.file}: row {index + 1}: {error}") from error
        items.append(
            Item(
                index=index,
                gold=row.get("gold", row.get("continuation")),
                category=row["category"] if task.has_categories and protocol == "foundry" else None,
                requests=asked.requests,
                truncated=asked.truncated,
                unscored=asked.unscored,
                detail={"spans": asked.spans, "row": row},
            )
        )
    return items


def choice_scores(item: Item, outputs: Sequence[Scored]) -> list[Scored | None]:
    """The score of each choice; None where it has no span of its own."""
    return [None if span is None else checked(outputs[span], item) for span in item.detail["spans"]]


def checked(score: Scored, item: Item) -> Scored:
    """The score, if it is one: a comparison with NaN would take the first choice, which in some files is always right.

    Raises EvaluationError for NaN.
    """
    if np.isnan(score.logprobs).any():
        raise EvaluationError(
            f"item {item.index}: the model answered with NaN; look for overflow (float16?) or broken weights"
        )
    return score


def prompt_sha256(item: Item) -> str:
    """Of the token ids of all requests, so that two evaluations can be seen to have asked the same."""
    ids = "|".join(",".join(map(str, context)) + ">" + ",".join(map(str, ids)) for context, ids in item.requests)
    return hashlib.sha256(ids.encode()).hexdigest()


def wrong(item: Item, gold: Any) -> Record:
    """A row that could not be asked counts as wrong."""
    return Record(
        index=item.index,
        correct=0.0,
        prediction=None,
        gold=gold,
        category=item.category,
        truncated=item.truncated,
        unscored=item.unscored,
        prompt_sha256=prompt_sha256(item),
    )

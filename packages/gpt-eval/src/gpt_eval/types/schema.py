"""Sentences with one ending and several beginnings: which beginning makes the ending most likely.

Rows: context_options[], continuation, gold. Reductions as in `multiple_choice`; "harness" reports the accuracy alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt_eval.data.checks import check_choices, check_fields, check_gold, check_text
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Item, ProtocolName, Record, Row, Task
from gpt_eval.types import _scored
from gpt_eval.types.multiple_choice import grade_choices, summarize_choices

NEEDS: frozenset[Capability] = frozenset({"score"})
SAME_LENGTH = "context_options"


def check_row(row: Row, task: Task) -> str | None:
    """context_options (at least two), a continuation that is not empty, and gold, the number of an option."""
    return (
        check_fields(row, {"context_options": list, "continuation": str, "gold": int}, task)
        or check_choices(row, "context_options")
        or check_text(row, "continuation")
        or check_gold(row, "context_options")
    )


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One request per option."""
    return _scored.make_items("schema", task, rows, indices, model, protocol)


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 for the gold option."""
    return grade_choices(item, outputs, protocol)


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """As for `multiple_choice`."""
    return summarize_choices(records)

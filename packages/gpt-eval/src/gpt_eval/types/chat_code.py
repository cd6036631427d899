"""Programs that a chat model writes as a reply: HumanEval as nanochat asks it. Rows as in `code`, Python only.

The prompt is the user's turn; what runs is its leading imports and the reply's first fenced block.
"""

from collections.abc import Sequence

from gpt_eval.chat.program import chat_program, leading_imports
from gpt_eval.chat.prompts import chat_item
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.sandbox import isolation
from gpt_eval.task import Item, ProtocolName, Record, Row, Task
from gpt_eval.types import code
from gpt_eval.types.code import summarize

__all__ = ["EXECUTES_CODE", "NEEDS", "check_row", "grade", "make_items", "summarize"]

NEEDS: frozenset[Capability] = frozenset({"chat"})
EXECUTES_CODE = True


def check_row(row: Row, task: Task) -> str | None:
    """As a `code` row, in Python."""
    if row.get("language", "python") != "python":
        return f"a chat model's reply is run as Python, got language {row['language']!r}"
    return code.check_row(row, task)


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One user turn with the problem."""
    isolation()
    settings = code.sampling(task, (), 512)
    return [chat_item(i, rows[i]["prompt"], settings, gold=rows[i]["entry_point"], row=rows[i]) for i in indices]


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """Runs every reply with the row's test."""
    prompt = item.detail["prompt"]
    programs = [chat_program(prompt, str(reply)) for reply in outputs]
    return code.graded(task, item, programs, prelude=leading_imports(prompt))

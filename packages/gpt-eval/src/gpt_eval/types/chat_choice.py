"""Multiple choice put to a chat model: which letter it would say first. Rows: question, choices[], gold[, letters[]].

The letters' tokens are compared at the place where the answer begins, so no text is generated (nanochat's categorical
tasks). Each letter must be one token.
"""

from collections.abc import Sequence

import numpy as np

from gpt_eval.chat.multiple_choice import LETTERS, letters_of, render_question
from gpt_eval.chat.prompts import prompt_sha256
from gpt_eval.errors import EvaluationError
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Item, ProtocolName, Record, Row, Task

NEEDS: frozenset[Capability] = frozenset({"chat_score"})


def check_row(row: Row, task: Task) -> str | None:
    """question, at least two choices, gold one of them, and as many different letters where they are given."""
    choices, gold = row.get("choices"), row.get("gold")
    if not isinstance(row.get("question"), str) or not row["question"].strip():
        return f"question must be text that is not blank, got {row.get('question')!r}"
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(each, str) for each in choices):
        return f"choices must be at least two texts, got {choices!r}"
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        return f"gold is {gold!r}, expected 0..{len(choices) - 1}"
    if "letters" not in row:
        return None if len(choices) <= len(LETTERS) else f"{len(choices)} choices need letters of their own"
    letters = row["letters"]
    if (
        not isinstance(letters, list)
        or not all(isinstance(each, str) and each.strip() for each in letters)
        or not len(letters) == len(set(letters)) == len(choices)
    ):
        return f"letters must be {len(choices)} different texts that are not blank, got {letters!r}"
    return None


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One request per letter, all after the same conversation."""
    known: dict[str, int] = {}
    items = []
    for index in indices:
        row = rows[index]
        letters = letters_of(row)
        turn = {"role": "user", "content": render_question(row["question"], letters, row["choices"])}
        ids = model.chat_ids([turn])
        context = ids[-model.max_length :]
        for letter in letters:
            known[letter] = known.get(letter) or one_token(letter, task, index, model)
        items.append(
            Item(
                index=index,
                gold=row["gold"],
                category=row.get("category") if task.has_categories else None,
                requests=tuple((context, (known[letter],)) for letter in letters),
                truncated=len(ids) > len(context),
                detail=letters,
            )
        )
    return items


def one_token(letter: str, task: Task, index: int, model: LanguageModel) -> int:
    """The id of a letter. Raises EvaluationError where a tokenizer splits it."""
    ids = model.encode(letter)
    if len(ids) != 1:
        raise EvaluationError(
            f"{task.file}: row {index + 1}: the answer {letter!r} is {len(ids)} tokens of {model.name}'s tokenizer; "
            "this benchmark compares single tokens"
        )
    return ids[0]


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 where the likeliest letter is the row's; the first of equals."""
    scores = [output.sum for output in outputs if isinstance(output, Scored)]
    prediction = int(np.argmax(scores))
    return Record(
        index=item.index,
        correct=float(prediction == item.gold),
        prediction=prediction,
        gold=item.gold,
        category=item.category,
        truncated=item.truncated,
        prompt_sha256=prompt_sha256(item),
        detail={"letters": item.detail, "logprobs": scores},
    )

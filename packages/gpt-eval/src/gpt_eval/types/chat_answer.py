"""Questions to a chat model whose replies end in a short answer: GSM8K and SpellingBee. Rows: question, answer.

`answer` is the reference with its "#### 42". Options: extract ("gsm8k": the first "#### NUMBER", equal as text once
commas are gone; "harness_strict" and "harness_flexible": lm-evaluation-harness' two filters), max_new_tokens (512),
temperature (0), top_k (50; null: all tokens). With option n above 1 and a temperature a row counts if any reply is
right, as in nanochat; that is not pass@n. Greedy replies are all the same, so without a temperature there is one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt_eval.chat.extract import gsm8k_answer
from gpt_eval.chat.prompts import chat_item, prompt_sha256
from gpt_eval.errors import EvaluationError
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task
from gpt_eval.types._answers import flexible_number, same_number, strict_number

NEEDS: frozenset[Capability] = frozenset({"chat"})
EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "gsm8k": gsm8k_answer,
    "harness_strict": strict_number,
    "harness_flexible": flexible_number,
}


def check_row(row: Row, task: Task) -> str | None:
    """A question, and an answer in which the rule finds one."""
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"{key} must be text that is not blank, got {row.get(key)!r}"
    if gsm8k_answer(row["answer"]) is None:
        return f'answer has no "#### NUMBER": {row["answer"][-60:]!r}'
    return None


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """The question as the user's turn, answered greedily unless the options say otherwise."""
    extractor(task)
    options = task.options
    temperature, top_k = float(options.get("temperature", 0.0)), options.get("top_k", 50)
    settings = Generation(
        max_new_tokens=int(options.get("max_new_tokens", 512)),
        temperature=temperature,
        top_k=None if top_k is None else int(top_k),
        n=int(options.get("n", 1)) if temperature > 0 else 1,
    )
    tools = getattr(model, "tools", None)
    return [
        chat_item(i, rows[i]["question"], settings, gold=gold(rows[i]), row={**rows[i], "tools": tools})
        for i in indices
    ]


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 where a reply holds the answer. A reply without one is wrong, also where the reference has none."""
    extract = extractor(task)
    found = [extract(str(text)) for text in outputs]
    if task.options.get("extract", "gsm8k") == "gsm8k":
        right = [answer is not None and answer == item.gold for answer in found]
    else:
        right = [same_number(answer, item.detail["answer"]) for answer in found]
    return Record(
        index=item.index,
        correct=float(any(right)),
        prediction=found[0] if len(found) == 1 else found,
        gold=item.gold,
        prompt_sha256=prompt_sha256(item),
        detail={"replies": [str(text) for text in outputs], "tools": item.detail["tools"]},
    )


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """Which rule read the answers, and whether the model had its calculator at hand: null where it does not say."""
    said = {record.detail["tools"] for record in records}
    return {"extract": task.options.get("extract", "gsm8k"), "tools": said.pop() if len(said) == 1 else None}


def gold(row: Row) -> str:
    return gsm8k_answer(row["answer"]) or ""


def extractor(task: Task) -> Callable[[str], str | None]:
    name = task.options.get("extract", "gsm8k")
    if name not in EXTRACTORS:
        raise EvaluationError(f"{task.name}: extract must be one of {', '.join(EXTRACTORS)}, got {name!r}")
    return EXTRACTORS[name]

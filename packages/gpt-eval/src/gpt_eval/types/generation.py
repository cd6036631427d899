"""Questions answered in free text (llm-foundry's generation_task_with_answers).

Rows: context, answer, and maybe aliases[] and chain_of_thought. "foundry" and "core" call an answer right that begins
with one of the labels, which is lenient (18 for 1): the metric `exact` asks for equality. "harness" asks for equality
without case and punctuation, or, where answers follow "####", for the same number, its strict match (and reports the
flexible one).

Options: cot_delimiter, normalize (true), stops, max_new_tokens (the longest answer of the file,
or half of the model's context where that is longer than all of it), compat (false: labels
of which normalisation leaves nothing are dropped; upstream they match everything), temperature, top_p, top_k.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from gpt_eval.data.checks import check_fields, check_text
from gpt_eval.errors import EvaluationError
from gpt_eval.fewshot import sampler
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.protocols import conventions
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task
from gpt_eval.types import _answers

NEEDS: frozenset[Capability] = frozenset({"generate"})
COT_BUFFER = 10
"""Tokens that an answer with a chain of thought may have more than the longest of the file."""
HARNESS_NEW_TOKENS = 256
OPTIONS = frozenset(
    {"cot_delimiter", "normalize", "stops", "max_new_tokens", "compat", "temperature", "top_p", "top_k"}
    | {"sampler", "fewshot_delimiter"}
)


def check_row(row: Row, task: Task) -> str | None:
    """A context and an answer; aliases are strings, a chain of thought is one."""
    unknown = set(task.options) - OPTIONS
    if unknown:
        return f"{task.name} has options that generation does not know: {', '.join(sorted(unknown))}"
    if wrong := _wrong_option(task.options):
        return f"{task.name}: {wrong}"
    fields: dict[str, type] = {"context": str, "answer": str}
    fields |= {name: kind for name, kind in (("aliases", list), ("chain_of_thought", str)) if name in row}
    problem = check_fields(row, fields, task) or check_text(row, "answer")
    if problem is None and not all(isinstance(alias, str) for alias in row.get("aliases", ())):
        return "aliases has an entry that is not a string"
    return problem


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """One prompt each; how long an answer may be is the same for all rows of the file."""
    reasoned = any("chain_of_thought" in row for row in rows)
    shots = sampler(task, rows, protocol)
    render = conventions(protocol).generation
    settings = _settings(task, rows, reasoned, model, protocol)
    items = []
    for index in indices:
        row = rows[index]
        shown = [(rows[shot]["context"], _shown_answer(task, rows[shot], reasoned, protocol)) for shot in shots(index)]
        try:
            prompt, truncated = render(task, row, shown, model, settings.max_new_tokens)
        except EvaluationError as error:
            raise type(error)(f"{task.file}: row {index + 1}: {error}") from error
        items.append(
            Item(
                index=index,
                gold=row["answer"],
                category=row["category"] if task.has_categories and protocol == "foundry" else None,
                prompt=prompt,
                generation=settings,
                truncated=truncated,
                detail={"labels": labels(row)},
            )
        )
    return items


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """1 for a right answer; `exact` (or `flexible`) beside it."""
    text = cast("str", outputs[0])
    assert item.prompt is not None and item.generation is not None
    answer = _answers.cut_at(text, item.generation.stops)
    given: Sequence[str] = item.detail["labels"]
    if protocol == "harness":
        correct, metrics, prediction = _harness(task, answer, given)
    else:
        correct, metrics, prediction = _foundry(task, answer, given)
    return Record(
        index=item.index,
        correct=float(correct),
        prediction=prediction,
        gold=item.gold,
        category=item.category,
        metrics=metrics,
        truncated=item.truncated,
        prompt_sha256=hashlib.sha256(",".join(map(str, item.prompt)).encode()).hexdigest(),
        detail={"text": text, "labels": list(given), "max_new_tokens": item.generation.max_new_tokens},
    )


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """How long answers could be: less than the longest of the file where the model's context has no room for it."""
    budgets = {record.detail["max_new_tokens"] for record in records}
    return {"max_new_tokens": max(budgets)} if budgets else {}


def labels(row: Row) -> list[str]:
    """The answer and its aliases, each once."""
    return list(dict.fromkeys([row["answer"], *row.get("aliases", ())]))


def longest_answer(task: Task, rows: Sequence[Row], reasoned: bool, model: LanguageModel) -> int:
    """Tokens of the longest label of the file, with its chain of thought, plus a buffer where there is a delimiter."""
    delimiter = task.options.get("cot_delimiter", "")
    longest = 0
    for row in rows:
        before = row.get("chain_of_thought", "") + delimiter if reasoned else ""
        longest = max(longest, *(len(model.encode(before + label, specials=True)) for label in labels(row)))
    return max(longest + (COT_BUFFER if delimiter else 0), 1)


def _wrong_option(options: Mapping[str, Any]) -> str | None:
    """What is wrong with the value of an option, in words; stops that are one text would be its letters."""
    stops, count = options.get("stops") or (), options.get("max_new_tokens")
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) and stop for stop in stops):
        return f"stops are {stops!r}, expected a list of strings, none empty"
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        return f"max_new_tokens is {count!r}, expected a whole number of at least 1"
    if not isinstance(options.get("cot_delimiter", ""), str):
        return f"cot_delimiter is {options['cot_delimiter']!r}, expected a string"
    for name in ("normalize", "compat"):
        if not isinstance(options.get(name, False), bool):
            return f"{name} is {options[name]!r}, expected true or false"
    return None


def _settings(
    task: Task, rows: Sequence[Row], reasoned: bool, model: LanguageModel, protocol: ProtocolName
) -> Generation:
    options: Mapping[str, Any] = task.options
    count = options.get("max_new_tokens")
    if count is None:
        count = HARNESS_NEW_TOKENS if protocol == "harness" else longest_answer(task, rows, reasoned, model)
        if count >= model.max_length:  # said by `summarize`; the original fails here
            count = max(1, model.max_length // 2)
    stops = tuple(options.get("stops") or ())
    if protocol == "harness" and not stops:
        stops = (options.get("fewshot_delimiter", "\n\n"),)
    return Generation(
        max_new_tokens=count,
        stops=stops,
        temperature=options.get("temperature", 0.0),
        top_p=options.get("top_p", 1.0),
        top_k=options.get("top_k"),
    )


def _shown_answer(task: Task, row: Row, reasoned: bool, protocol: ProtocolName) -> str:
    """What a shot answers; "foundry" strips the columns of a row, the others leave them."""
    fields = [row.get("chain_of_thought", ""), row["answer"]]
    reasoning, answer = (field.strip() for field in fields) if protocol == "foundry" else fields
    return reasoning + task.options.get("cot_delimiter", "") + answer if reasoned else answer


def _foundry(task: Task, answer: str, given: Sequence[str]) -> tuple[bool, dict[str, float], str]:
    """(Whether the answer begins with a label, equality as `exact`, what was compared)."""
    answer = _answers.after_last(answer, task.options.get("cot_delimiter", ""))
    clean = _answers.normalized if task.options.get("normalize", True) else str.strip
    answer, cleaned = clean(answer), {clean(label) for label in given}
    if not task.options.get("compat", False):
        cleaned.discard("")
    return answer.startswith(tuple(cleaned)), {"exact": float(answer in cleaned)}, answer


def _harness(task: Task, answer: str, given: Sequence[str]) -> tuple[bool, dict[str, float], str | None]:
    """(Whether it matches, the flexible match of numbers, what was compared)."""
    if "####" in task.options.get("cot_delimiter", ""):
        strict, flexible = _answers.strict_number(answer), _answers.flexible_number(answer)
        loose = any(_answers.same_number(flexible, label) for label in given)
        return any(_answers.same_number(strict, label) for label in given), {"flexible": float(loose)}, strict
    delete = str.maketrans("", "", _answers.string.punctuation)
    clean = answer.strip().lower().translate(delete)
    return any(clean == label.strip().lower().translate(delete) for label in given), {}, clean

"""The conventions of lm-evaluation-harness (release 0.4.x), for tasks in the gauntlet's own format.

The harness writes a task as a text, a target delimiter and targets. Here a task's continuation delimiter is split:
what it ends with in whitespace is the target delimiter, the rest belongs to the text. Examples are parted by
`options["fewshot_delimiter"]`, a blank line if there is none. A context and its answer are one encode, split where
the encode of the context alone ends.
"""

from collections.abc import Sequence
from typing import cast

from gpt_eval.errors import EvaluationError
from gpt_eval.model import LanguageModel
from gpt_eval.protocols.asked import Asked, asked
from gpt_eval.task import Row, Task
from gpt_eval.truncation import Fitted, fit, fit_prompt

SEPARATOR = "\n\n"


def multiple_choice(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """One request per choice after the same text."""
    text, target = _split(task)
    before = _examples(task, [(shot["query"], shot["choices"][shot["gold"]]) for shot in shots])
    context = before + task.prelimiter + row["query"] + text
    return asked([_request(context, target + choice, model) for choice in row["choices"]])


def language_modeling(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The continuation after its context (output type loglikelihood)."""
    text, target = _split(task)
    before = _examples(task, [(shot["context"], shot["continuation"]) for shot in shots])
    context = before + task.prelimiter + row["context"] + text
    return asked([_request(context, target + row["continuation"], model)])


def schema(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The continuation after each option (multiple inputs, as in the harness's winogrande)."""
    text, target = _split(task)
    before = _examples(task, [(shot["context_options"][shot["gold"]], shot["continuation"]) for shot in shots])
    contexts = [before + task.prelimiter + option + text for option in row["context_options"]]
    return asked([_request(context, target + row["continuation"], model) for context in contexts])


def generation(
    task: Task, row: Row, shots: Sequence[tuple[str, str]], model: LanguageModel, max_new_tokens: int
) -> tuple[list[int], bool]:
    """(Ids of the prompt, whether it was cut from the left to leave room for `max_new_tokens`)."""
    text, _ = _split(task)
    prompt = _encode(_examples(task, shots) + task.prelimiter + row["context"] + text, model)
    if not prompt:
        prompt = [_start(model)]
    return fit_prompt(prompt, model.max_length - max_new_tokens)


def _split(task: Task) -> tuple[str, str]:
    """(What the text ends with, the target delimiter) of the continuation delimiter."""
    text = task.continuation_delimiter.rstrip()
    return text, task.continuation_delimiter[len(text) :]


def _examples(task: Task, shots: Sequence[tuple[str, str]]) -> str:
    separator = cast("str", task.options.get("fewshot_delimiter", SEPARATOR))
    shown = (task.prelimiter + context + task.continuation_delimiter + answer + separator for context, answer in shots)
    return task.prompt_string + "".join(shown)


def _request(context: str, continuation: str, model: LanguageModel) -> Fitted | None:
    """The ids of a pair as the harness cuts them: one token more is scored than protocol "foundry" would fit."""
    limit = model.max_length + 1
    if not context:
        ids, start = model.encode(continuation), _start(model)
        return fit([start], ids, limit) if ids[:1] != [start] else _split_first(ids, limit)
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    if not stripped:  # nothing but whitespace: the harness conditions on the start of text
        return _request("", continuation, model)
    before, whole = _encode(stripped, model), _encode(stripped + continuation, model)
    after = whole[len(before) :]
    return fit(before, after, limit) if after else None


def _split_first(ids: list[int], limit: int) -> Fitted | None:
    """An answer that begins with the start of text: that token is the context."""
    return fit(ids[:1], ids[1:], limit) if len(ids) > 1 else None


def _encode(text: str, model: LanguageModel) -> list[int]:
    """With the special tokens that the tokenizer adds, unless the text begins with the start of text itself."""
    start = _start(model, missing=None)
    doubled = start is not None and bool(mark := model.decode([start])) and text.startswith(mark)
    return model.encode(text, specials=not doubled)


def _start(model: LanguageModel, missing: str | None = "error") -> int | None:
    start = model.bos_id if model.bos_id is not None else model.eot_id
    if start is None and missing:
        raise EvaluationError("an empty context, and the tokenizer has no start or end of text to put in its place")
    return start

"""The conventions of lm-evaluation-harness (release 0.4.x), for tasks in the gauntlet's own format.

The harness writes a task as a text, a target delimiter and targets. Here a task's continuation delimiter is split:
what it ends with in whitespace is the target delimiter, the rest belongs to the text. Examples are parted by
`options["fewshot_delimiter"]`, a blank line if there is none. A context and its answer are one encode, split where
the encode of the context alone ends.
"""

from collections.abc import Sequence
from typing import cast

from gpt_eval.model import LanguageModel
from gpt_eval.protocols.asked import Asked, asked
from gpt_eval.protocols.start import start_of_text
from gpt_eval.task import Row, Task
from gpt_eval.truncation import Fitted, fit, fit_prompt

SEPARATOR = "\n\n"


def multiple_choice(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """One request per choice after the same text."""
    text, target = _split(task)
    before = _examples(task, [(shot["query"], shot["choices"][shot["gold"]]) for shot in shots])
    context = before + task.prelimiter + row["query"] + text
    return _ask([(context, target + choice) for choice in row["choices"]], model)


def language_modeling(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The continuation after its context (output type loglikelihood)."""
    text, target = _split(task)
    before = _examples(task, [(shot["context"], shot["continuation"]) for shot in shots])
    context = before + task.prelimiter + row["context"] + text
    return _ask([(context, target + row["continuation"])], model)


def schema(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The continuation after each option (multiple inputs, as in the harness's winogrande)."""
    text, target = _split(task)
    before = _examples(task, [(shot["context_options"][shot["gold"]], shot["continuation"]) for shot in shots])
    contexts = [before + task.prelimiter + option + text for option in row["context_options"]]
    return _ask([(context, target + row["continuation"]) for context in contexts], model)


def generation(
    task: Task, row: Row, shots: Sequence[tuple[str, str]], model: LanguageModel, max_new_tokens: int
) -> tuple[list[int], bool]:
    """(Ids of the prompt, whether it was cut from the left to leave room for `max_new_tokens`)."""
    text, _ = _split(task)
    prompt = _encode(_examples(task, shots) + task.prelimiter + row["context"] + text, model)
    return fit_prompt(prompt or [start_of_text(model)], model.max_length - max_new_tokens)


def _split(task: Task) -> tuple[str, str]:
    """(What the text ends with, the target delimiter) of the continuation delimiter."""
    text = task.continuation_delimiter.rstrip()
    return text, task.continuation_delimiter[len(text) :]


def _examples(task: Task, shots: Sequence[tuple[str, str]]) -> str:
    separator = cast("str", task.options.get("fewshot_delimiter", SEPARATOR))
    shown = (task.prelimiter + context + task.continuation_delimiter + answer + separator for context, answer in shots)
    return task.prompt_string + "".join(shown)


def _ask(pairs: Sequence[tuple[str, str]], model: LanguageModel) -> Asked:
    """Pairs of context and continuation as the harness encodes them.

    Whitespace at the end of a context moves to the continuation. One token more is scored than "foundry" would fit.
    """
    contexts: dict[str, list[int]] = {}  # each is encoded once; its choices share the list
    fitted = []
    for context, continuation in pairs:
        text = context.rstrip()
        if text not in contexts:
            contexts[text] = _encode(text, model) if text else [start_of_text(model)]
        before = contexts[text]
        fitted.append(_fit(before, _after(text, before, context[len(text) :] + continuation, model), model))
    return asked(fitted)


def _after(text: str, before: list[int], continuation: str, model: LanguageModel) -> list[int]:
    """The ids of a continuation; one that begins with the start of text has that as its context, when it has none."""
    if text:
        return _encode(text + continuation, model)[len(before) :]
    ids = model.encode(continuation)
    return ids[1:] if ids[:1] == before else ids


def _fit(context: list[int], continuation: list[int], model: LanguageModel) -> Fitted | None:
    return fit(context, continuation, model.max_length + 1) if continuation else None


def _encode(text: str, model: LanguageModel) -> list[int]:
    """With the special tokens that the tokenizer adds, unless the text begins with the start of text itself."""
    start = model.bos_id if model.bos_id is not None else model.eot_id
    mark = "" if start is None else model.decode([start])
    return model.encode(text, specials=not (mark and text.startswith(mark)))

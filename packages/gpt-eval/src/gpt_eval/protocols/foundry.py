"""The conventions of llm-foundry's gauntlet (in-context learning datasets, release of commit 8c8dd48f).

A prompt is three separate encodes: P, the prompt string and the shots, with the tokenizer's special tokens; Q, the
question, and the answer, without. Text is stripped; examples are parted by `example_delimiter`.
"""

from collections.abc import Sequence

from gpt_eval.model import LanguageModel
from gpt_eval.protocols.asked import Asked, asked
from gpt_eval.protocols.start import start_of_text
from gpt_eval.task import Row, Task
from gpt_eval.truncation import fit, fit_prompt


def multiple_choice(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """One request per choice, all after the same context."""
    row, shots = _stripped(row), [_stripped(shot) for shot in shots]
    before = _examples(task, [(shot["query"], shot["choices"][shot["gold"]]) for shot in shots])
    context = _context(task, before, row["query"], model)
    return asked([_fit(context, choice, model) for choice in row["choices"]])


def language_modeling(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The continuation after its context."""
    row, shots = _stripped(row), [_stripped(shot) for shot in shots]
    before = _examples(task, [(shot["context"], shot["continuation"]) for shot in shots])
    context = _context(task, before, row["context"], model)
    return asked([_fit(context, row["continuation"], model)])


def schema(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The same continuation after each of several contexts.

    Two quirks of the original are kept: the prelimiter stands before the delimiter between examples, and a question
    without anything before it has no continuation delimiter at all.
    """
    row, shots = _stripped(row), [_stripped(shot) for shot in shots]
    before = task.prompt_string
    for shot in shots:
        delimiter = task.example_delimiter if before else ""
        option = shot["context_options"][shot["gold"]]
        before += task.prelimiter + delimiter + option + task.continuation_delimiter + shot["continuation"]
    head = _preamble(before, model)
    parts = [task.prelimiter + option for option in row["context_options"]]
    if before:
        delimiter, tail = task.prelimiter + task.example_delimiter, task.continuation_delimiter.rstrip()
        parts = [delimiter + option + tail for option in row["context_options"]]
    contexts = [_never_empty(head + model.encode(part), model) for part in parts]
    return asked([_fit(context, row["continuation"], model) for context in contexts])


def generation(
    task: Task, row: Row, shots: Sequence[tuple[str, str]], model: LanguageModel, max_new_tokens: int
) -> tuple[list[int], bool]:
    """(Ids of the prompt, whether it lost its beginning to leave room for `max_new_tokens`).

    shots: (context, answer) of the rows to show; the task's type knows what an answer is.
    """
    before = _examples(task, [(context.strip(), answer) for context, answer in shots])
    context = _context(task, before, _stripped(row)["context"], model)
    limit = model.max_length - max_new_tokens
    return fit_prompt(context, limit)


def _stripped(row: Row) -> Row:
    """Strings of the row itself lose the whitespace around them, strings in lists do not."""
    return {key: value.strip() if isinstance(value, str) else value for key, value in row.items()}


def _examples(task: Task, shots: Sequence[tuple[str, str]]) -> str:
    """P: the prompt string and the shots."""
    text = task.prompt_string
    for question, answer in shots:
        text += _question(task, text, question) + answer
    return text


def _question(task: Task, before: str, question: str) -> str:
    delimiter = task.example_delimiter if before else ""
    return delimiter + task.prelimiter + question + task.continuation_delimiter


def _context(task: Task, before: str, question: str, model: LanguageModel) -> list[int]:
    """Ids of P and of Q; only Q loses trailing whitespace."""
    ids = _preamble(before, model) + model.encode(_question(task, before, question).rstrip())
    return _never_empty(ids, model)


def _preamble(before: str, model: LanguageModel) -> list[int]:
    """P with special tokens, but without an end-of-text token behind it."""
    ids = model.encode(before, specials=True)
    return ids[:-1] if len(ids) > 1 and ids[-1] == model.eot_id else ids


def _never_empty(ids: list[int], model: LanguageModel) -> list[int]:
    """An empty context scores nothing; what begins a text stands in for it (our rule: the original reads padding)."""
    return ids or [start_of_text(model)]


def _fit(context: list[int], answer: str, model: LanguageModel):
    """The space rule, the encode and the cut; exactly one space before the answer where tokens carry their space."""
    if model.prefix_space and not answer.startswith(" "):
        answer = " " + answer
    return fit(context, model.encode(answer), model.max_length)

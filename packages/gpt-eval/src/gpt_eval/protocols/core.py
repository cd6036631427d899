"""The conventions of CORE as nanochat evaluates it (nanochat/core_eval.py; the metric is DCLM's, arXiv 2406.11794).

Text is not stripped but for the contexts of language modeling; examples are parted by a blank line, there is no
prelimiter. A whole prompt with its answer is one encode after the start-of-text token, and what is scored is found
by comparing tokens: what the choices do not share.
"""

from collections.abc import Sequence

from gpt_eval.model import LanguageModel
from gpt_eval.protocols.asked import Asked, asked, not_asked
from gpt_eval.protocols.start import start_of_text
from gpt_eval.task import Row, Task
from gpt_eval.truncation import Fitted, fit_prompt

SEPARATOR = "\n\n"


def multiple_choice(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """From the first token in which the choices differ; tokens that all of them begin with are not scored."""
    delimiter = task.continuation_delimiter
    before = _joined(shot["query"] + delimiter + shot["choices"][shot["gold"]] for shot in shots)
    prompts = [_encode(before + row["query"] + delimiter + choice, model) for choice in row["choices"]]
    start = common_prefix(prompts)
    return _cut(prompts, [start] * len(prompts), model)


def language_modeling(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """From the end of the stripped prompt, whose tokens must begin the tokens of the whole."""
    delimiter = task.continuation_delimiter
    before = _joined(shot["context"].strip() + delimiter + shot["continuation"] for shot in shots)
    without = before + row["context"].strip() + delimiter
    prompt, whole = _encode(without.strip(), model), _encode(without + row["continuation"], model)
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        return not_asked("the prompt's tokens do not begin those of the prompt with its answer", 1, truncated=False)
    return _cut([whole], [len(prompt)], model)


def schema(task: Task, row: Row, shots: Sequence[Row], model: LanguageModel) -> Asked:
    """The tokens that all options end with."""
    delimiter = task.continuation_delimiter
    before = _joined(shot["context_options"][shot["gold"]] + delimiter + shot["continuation"] for shot in shots)
    prompts = [_encode(before + o + delimiter + row["continuation"], model) for o in row["context_options"]]
    shared = common_prefix([prompt[::-1] for prompt in prompts])
    return _cut(prompts, [max(1, len(prompt) - shared) for prompt in prompts], model)


def generation(
    task: Task, row: Row, shots: Sequence[tuple[str, str]], model: LanguageModel, max_new_tokens: int
) -> tuple[list[int], bool]:
    """(Ids of the prompt, whether it was cut). CORE has no generation; the rules are those of its language modeling."""
    delimiter = task.continuation_delimiter
    before = _joined(context.strip() + delimiter + answer for context, answer in shots)
    prompt = _encode((before + row["context"].strip() + delimiter).strip(), model)
    return fit_prompt(prompt, model.max_length - max_new_tokens)


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with."""
    shortest = min(map(len, sequences))
    for place in range(shortest):
        if len({sequence[place] for sequence in sequences}) > 1:
            return place
    return shortest


def _joined(examples) -> str:
    return "".join(example + SEPARATOR for example in examples)


def _encode(text: str, model: LanguageModel) -> list[int]:
    return [start_of_text(model), *model.encode(text)]


def _cut(prompts: Sequence[list[int]], starts: Sequence[int], model: LanguageModel) -> Asked:
    """The last tokens that fit of each prompt, with its span moved along.

    nanochat asserts that no span is cut away; here such a row counts as wrong and says why.
    """
    fitted: list[Fitted | None] = []
    for prompt, start in zip(prompts, starts, strict=True):
        lost = max(0, len(prompt) - model.max_length)
        if start == len(prompt):
            fitted.append(None)
        elif start - lost < 1:
            return not_asked("the scored span does not fit the model's context", len(prompts), truncated=True)
        else:
            context = prompt[lost:start]
            shared = next((one.context for one in fitted if one is not None and one.context == context), context)
            fitted.append(Fitted(shared, prompt[start:], lost > 0))
    return asked(fitted)

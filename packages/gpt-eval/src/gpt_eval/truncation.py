"""Cutting a context that does not fit: always from its beginning, never from what is scored."""

from typing import NamedTuple

from gpt_eval.errors import EvaluationError


class Fitted(NamedTuple):
    """A scoring request that fits the model."""

    context: list[int]
    continuation: list[int]
    truncated: bool


def fit(context: list[int], continuation: list[int], limit: int) -> Fitted:
    """The last `limit` - len(continuation) tokens of `context`, at least one of them, and the whole continuation.

    limit: tokens that both may have together, as the protocol counts; a model may be fed one less than that.
    A context that fits is returned itself, not a copy: the choices of an item share it.
    A remainder of 0 must not become the slice [-0:], which keeps everything; one token is kept, because a first token
    is only scored after another one, and the last token of the continuation is not fed to the model.
    Raises EvaluationError if the continuation alone is longer than `limit`.
    """
    room = limit - len(continuation)
    if room < 0:
        raise EvaluationError(
            f"an answer of {len(continuation)} tokens, expected at most {limit}: the model reads no more at once; "
            "leave this task out or take a model with a longer context"
        )
    keep = max(room, 1)
    if len(context) <= keep:
        return Fitted(context, continuation, False)
    return Fitted(context[-keep:], continuation, True)


def fit_prompt(prompt: list[int], limit: int) -> tuple[list[int], bool]:
    """(The last `limit` tokens of a prompt to continue, whether it lost any).

    Raises EvaluationError if there is no room for a single one.
    """
    if limit < 1:
        raise EvaluationError(
            f"no room for a prompt ({limit} tokens left beside the answer): the model's context is too short for the "
            "longest answer of this task; lower `max_new_tokens` in the task's options or leave it out"
        )
    return prompt[-limit:], len(prompt) > limit

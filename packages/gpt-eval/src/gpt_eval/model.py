"""What an evaluator asks of a language model: text in, numbers out.

No tensor crosses this line, so a GPT of this repository, a Hugging Face model and an HTTP endpoint all fit.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Score(NamedTuple):
    """How likely a model finds one continuation after its context."""

    logprob: float
    """Sum over the continuation's tokens of ln P(token | everything before it), in nats."""

    is_greedy: bool
    """True if every token of the continuation is the most likely one at its place."""

    num_tokens: int
    """Number of tokens in the continuation, in the model's own tokenizer."""


class LanguageModel(Protocol):
    """Anything that scores and continues text. An implementation inherits nothing."""

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Scores each (context, continuation), in order. The context itself is never scored."""
        ...

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """Continues each prompt greedily, up to the first of the `stop` strings or `max_tokens` tokens."""
        ...

"""Multiple choice: the model answers with the choice that it finds most likely after the question.

How the log-probabilities of choices with different lengths compare is a convention, and conventions change
predictions on up to half of the items of common tasks. All four in use are computed from the same scores:

    rule           a choice's score                        who reports it
    sum            log-probability                         lm-evaluation-harness `acc`
    per_character  log-probability / len(choice)           lm-evaluation-harness `acc_norm`
    per_byte       log-probability / len(UTF-8 of choice)  lm-evaluation-harness `acc_bytes`
    per_token      log-probability / number of tokens      llm-foundry, DCLM CORE

Lengths are those of the choice without the delimiter, tokens those of the continuation with it. Ties go to
the first choice. Names in the code: I items, C choices of one item.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gpt_eval.metrics import centered_accuracy
from gpt_eval.model import LanguageModel, Score

RULES = ("sum", "per_character", "per_byte", "per_token")


@dataclass(frozen=True)
class MultipleChoiceItem:
    """One question: the whole prompt, the answers to choose from, and the index of the right one."""

    query: str
    choices: tuple[str, ...]
    gold: int

    def __post_init__(self) -> None:
        if len(self.choices) < 2 or not all(self.choices):
            raise ValueError(f"an item needs at least two choices, none of them empty; got {self.choices!r}")
        if not 0 <= self.gold < len(self.choices):
            raise ValueError(f"gold must index a choice, 0..{len(self.choices) - 1}; got {self.gold}")


@dataclass(frozen=True)
class MultipleChoiceResult:
    """What a model reached on a list of items under one rule."""

    accuracy: float
    """Fraction of items where the predicted choice is the right one."""

    standard_error: float
    """Sample standard deviation (n - 1) / sqrt(n) of the accuracy; NaN for a single item."""

    baseline: float
    """Accuracy of guessing: the mean over items of 1 / number of choices."""

    predictions: tuple[int, ...]
    """The chosen index of every item, in order; -1, which is wrong, where every choice scores minus infinity."""

    num_unscored: int
    """Choices that came back with no tokens; they score minus infinity instead of winning with a sum of 0."""

    @property
    def centered(self) -> float:
        """Accuracy with chance at 0 and perfection at 1."""
        return centered_accuracy(self.accuracy, self.baseline)


def multiple_choice_accuracy(
    model: LanguageModel, items: Sequence[MultipleChoiceItem], *, delimiter: str = " "
) -> dict[str, MultipleChoiceResult]:
    """Asks the model once for every choice and returns the result under each rule of `RULES`.

    delimiter: stands between query and choice and belongs to the scored continuation.
    Raises ValueError for an empty list of items, a missing score or a score that is NaN.
    """
    if not items:
        raise ValueError("no items to evaluate: got an empty list")
    pairs = [(item.query, delimiter + choice) for item in items for choice in item.choices]
    scores = model.loglikelihood(pairs)
    if len(scores) != len(pairs):
        raise ValueError(f"the model was asked for {len(pairs)} scores and returned {len(scores)}")
    for (query, continuation), score in zip(pairs, scores, strict=True):
        if np.isnan(score.logprob):
            raise ValueError(f"the model returned NaN for {continuation!r} after {query[-60:]!r}")

    baseline = float(np.mean([1.0 / len(item.choices) for item in items]))
    num_unscored = sum(score.num_tokens == 0 for score in scores)
    results = {}
    for rule in RULES:
        remaining = iter(scores)
        predictions = tuple(_predict(rule, item.choices, remaining) for item in items)
        correct_I = np.equal(predictions, [item.gold for item in items]).astype(float)
        error = correct_I.std(ddof=1) / np.sqrt(len(items)) if len(items) > 1 else np.nan
        results[rule] = MultipleChoiceResult(
            accuracy=float(correct_I.mean()),
            standard_error=float(error),
            baseline=baseline,
            predictions=predictions,
            num_unscored=num_unscored,
        )
    return results


def _predict(rule: str, choices: Sequence[str], remaining: Iterator[Score]) -> int:
    value_C = [_value(rule, choice, next(remaining)) for choice in choices]
    best = int(np.argmax(value_C))  # the first of equals
    return best if value_C[best] > -np.inf else -1


def _value(rule: str, choice: str, score: Score) -> float:
    if score.num_tokens == 0:
        return -np.inf
    length = {
        "sum": 1,
        "per_character": len(choice),
        "per_byte": len(choice.encode()),
        "per_token": score.num_tokens,
    }[rule]
    return score.logprob / length

"""Evaluation of language models: an evaluator asks for text and log-probabilities, never for tensors."""

from gpt_eval.metrics import bits_per_byte, centered_accuracy
from gpt_eval.model import LanguageModel, Score
from gpt_eval.multiple_choice import (
    RULES,
    MultipleChoiceItem,
    MultipleChoiceResult,
    multiple_choice_accuracy,
)

__all__ = [
    "RULES",
    "LanguageModel",
    "MultipleChoiceItem",
    "MultipleChoiceResult",
    "Score",
    "bits_per_byte",
    "centered_accuracy",
    "multiple_choice_accuracy",
]

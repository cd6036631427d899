"""Evaluation of language models: benchmarks, scored by the published conventions, on any model."""

from gpt_eval.errors import (
    BundleError,
    CodeExecutionRefused,
    EvaluationError,
    JudgeRequired,
    UnsupportedByBackend,
)
from gpt_eval.evaluate import evaluate
from gpt_eval.metrics import bits_per_byte, centered_accuracy
from gpt_eval.model import LanguageModel, Scored
from gpt_eval.results import Results, TaskResult
from gpt_eval.task import Generation, Item, Record, Task

__all__ = [
    "BundleError",
    "CodeExecutionRefused",
    "EvaluationError",
    "Generation",
    "Item",
    "JudgeRequired",
    "LanguageModel",
    "Record",
    "Results",
    "Scored",
    "Task",
    "TaskResult",
    "UnsupportedByBackend",
    "bits_per_byte",
    "centered_accuracy",
    "evaluate",
]

"""One benchmark with its settings, and what passes between a task's type and the runner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from gpt_eval.errors import EvaluationError
from gpt_eval.model import Capability, LanguageModel, Prompt, Scored

ProtocolName = Literal["foundry", "core", "harness"]
"""Whose conventions: llm-foundry's gauntlet, DCLM's CORE (nanochat), lm-evaluation-harness: different benchmarks."""

Row = Mapping[str, Any]
"""One line of a benchmark's JSONL file."""


@dataclass(frozen=True)
class Task:
    """A benchmark: which rows, asked how. Equal names with different settings are different results."""

    name: str
    type: str
    """A module of `gpt_eval.types` by its name (multiple_choice, language_modeling, schema, generation, ...), or the
    dotted path of a module of one's own with the same functions."""
    file: str
    """JSONL, relative to the bundle."""
    num_fewshot: int = 0
    baseline: float = 0.0
    """Accuracy of guessing, 0..1."""
    category: str = ""
    """Section of the suite that the score counts in."""
    continuation_delimiter: str = " "
    example_delimiter: str = "\n"
    prompt_string: str = ""
    prelimiter: str = ""
    has_categories: bool = False
    """Rows carry a `category`: shots come from the same one, the accuracy is the mean over categories."""
    fewshot_seed: int = 1234
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What only its type knows (cot_delimiter, stops, judge rubric, ...)."""

    def __post_init__(self) -> None:
        """Raises EvaluationError for numbers that no task has, before an evaluation ends with them."""
        if not 0.0 <= self.baseline < 1.0:
            raise EvaluationError(
                f"{self.name}: baseline is {self.baseline}, expected a fraction, at least 0 and below 1; "
                "divide a percentage by 100"
            )
        if not isinstance(self.num_fewshot, int) or self.num_fewshot < 0:
            raise EvaluationError(f"{self.name}: num_fewshot is {self.num_fewshot!r}, expected a whole number from 0")

    @property
    def label(self) -> str:
        """`name/K-shot`, as in llm-foundry's results."""
        return f"{self.name}/{self.num_fewshot}-shot"


@dataclass(frozen=True)
class Generation:
    """How to continue one prompt; items with equal settings are generated together."""

    max_new_tokens: int
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    n: int = 1


@dataclass(frozen=True)
class Item:
    """One row turned into what the model is asked: continuations to score, or a prompt to continue."""

    index: int
    """Row number in the file, from 0."""
    gold: Any = None
    category: str | None = None
    requests: tuple[tuple[Sequence[int], Sequence[int]], ...] = ()
    """(context ids, continuation ids) to score, already cut to the model's length."""
    prompt: Prompt | None = None
    generation: Generation | None = None
    truncated: bool = False
    """The context did not fit and lost its beginning."""
    unscored: str | None = None
    """Why this row cannot be scored at all (a span cut away, a missing compiler): it counts as the type says."""
    detail: Any = None
    """What `grade` needs besides: lengths of choices, the whole row."""


@dataclass(frozen=True)
class Record:
    """The outcome of one item: a line of samples.jsonl."""

    index: int
    correct: float
    """1 or 0; a share for what is graded in parts; NaN for what cannot be graded and is left out of the mean."""
    prediction: Any
    gold: Any
    category: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further numbers whose means are reported beside the accuracy: acc_norm, exact, ..."""
    truncated: bool = False
    unscored: str | None = None
    prompt_sha256: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON values worth keeping: per-choice sums and means, span lengths, generated text."""


class TaskType(Protocol):
    """What a module of `gpt_eval.types` offers: a constant and three functions.

    A module may offer more, which the runner looks for by name:

    EXECUTES_CODE = True: `grade` runs generated programs; refused unless the caller allows it.
    NEEDS_JUDGE = True: refused without a judge; the judge is handed to all its functions as `task.options["judge"]`.
    answer(task, items, model) -> one list of texts per item, for `grade`: where one `generate` of `item.prompt` with
    `item.generation` is not the whole conversation (several turns, tools).
    summarize(task, records) -> Mapping[str, JSON]: what the result holds besides the means of `correct` and `metrics`
    (intervals, labels, failures). `{"accuracy": None, ...}` withdraws a score that is not one.
    """

    NEEDS: frozenset[Capability]

    def check_row(self, row: Row, task: Task) -> str | None:
        """What is wrong with a row, in words ("gold is 4, expected 0..3"); None for a good one."""
        ...

    def make_items(
        self, task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
    ) -> list[Item]:
        """The items of `indices`. `rows` are all rows of the file: shots are drawn from them, by index."""
        ...

    def grade(
        self, task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName
    ) -> Record:
        """Compares what the model said (one `Scored` per request, or n texts) with the row's truth."""
        ...

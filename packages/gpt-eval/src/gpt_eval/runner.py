"""From tasks to records: items are made, asked of the model in chunks, graded, and shared among the ranks."""

import importlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from gpt_eval.errors import CodeExecutionRefused, EvaluationError, JudgeRequired, UnsupportedByBackend
from gpt_eval.model import LanguageModel, Scored
from gpt_eval.progress import Progress
from gpt_eval.ranks import Ranks, together
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task, TaskType

CHUNK_TOKENS = 1 << 16
"""Work between two writes to samples.jsonl: small enough to lose little, large enough to sort by length."""
CHUNK_ITEMS = 512
HELD_TOKENS = 1 << 23
"""Items are made twice, to count them and to run them, once those held already have so many tokens (1/4 GB)."""
PROBE = "1, 2, 3, 5, 8, 13, 21, 34 and so on: the quick brown fox jumps over the lazy dog."


@dataclass(frozen=True)
class Plan:
    """One task as this rank will run it."""

    task: Task
    type: TaskType
    rows: Sequence[Row]
    indices: Sequence[int]
    """Rows that are this rank's and still to do."""
    weights: Sequence[int]
    """Tokens of each."""
    items: Sequence[Item] | None
    """None: made again when it is their turn."""


def load_type(task: Task) -> TaskType:
    """The module that a task's type names. Raises EvaluationError that lists the types where there is none."""
    name = task.type if "." in task.type else f"gpt_eval.types.{task.type}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):  # the module is there; what it imports is not
            raise
        raise EvaluationError(
            f"{task.name}: no task type {task.type!r}; types are the modules of gpt_eval.types "
            f"({', '.join(known_types())}) or the dotted path of one of your own"
        ) from error
    lacking = [part for part in ("NEEDS", "check_row", "make_items", "grade") if not hasattr(module, part)]
    if lacking:
        raise EvaluationError(f"{task.name}: {name} is no task type, it lacks {', '.join(lacking)} (task.TaskType)")
    return cast(TaskType, module)


def known_types() -> list[str]:
    import pkgutil

    import gpt_eval.types

    return sorted(module.name for module in pkgutil.iter_modules(gpt_eval.types.__path__) if module.name[0] != "_")


def refuse(
    tasks: Sequence[tuple[Task, TaskType]],
    model: LanguageModel,
    allow_code_execution: bool,
    judge: Any,
    allow_self_judge: bool,
) -> None:
    """Raises before anything runs where the model, the caller or a missing judge forbids one of the tasks."""
    for task, kind in tasks:
        lacking = kind.NEEDS - model.supports
        if lacking:
            raise UnsupportedByBackend(
                f"{task.name} needs a model that can {' and '.join(sorted(lacking))}; {model.name} "
                f"({type(model).__name__}) can only {', '.join(sorted(model.supports)) or 'wait'}; nothing was run"
            )
        if getattr(kind, "EXECUTES_CODE", False) and not allow_code_execution:
            raise CodeExecutionRefused(
                f"{task.name} runs programs that the model writes; allow it with --allow-code-execution "
                "(allow_code_execution=True), in a container if you can; nothing was run"
            )
        if getattr(kind, "NEEDS_JUDGE", False):
            if judge is None:
                raise JudgeRequired(f"{task.name} needs --judge-url and --judge-model; nothing was run")
            if judge.id == model.name and not allow_self_judge:
                raise JudgeRequired(
                    f"{task.name}: {model.name} would judge its own answers; name another judge, or say "
                    "--allow-self-judge (the result is marked); nothing was run"
                )


def plan(
    tasks: Sequence[tuple[Task, TaskType, Sequence[Row], Sequence[int]]],
    model: LanguageModel,
    protocol: ProtocolName,
    ranks: Ranks,
) -> list[Plan]:
    """Makes every item once, so that what cannot be asked is known before anything runs. Collective.

    tasks: (task, its type, all rows, the rows to do on all ranks).
    """
    plans, held = [], 0

    def make() -> None:
        nonlocal held
        for task, kind, rows, indices in tasks:
            mine = [index for index in indices if index % ranks.world_size == ranks.rank]
            items = kind.make_items(task, rows, mine, model, protocol)
            if [item.index for item in items] != mine:
                raise EvaluationError(
                    f"{task.label}: make_items of {task.type} must return one item per index, in order"
                )
            weights = [item_tokens(item) for item in items]
            held += sum(weights)
            plans.append(Plan(task, kind, rows, mine, weights, items if held <= HELD_TOKENS else None))

    together(ranks, make)
    return plans


def item_tokens(item: Item) -> int:
    """Tokens that an item costs, about: a context object that its requests share counts once."""
    if item.requests:
        contexts = {id(context): len(context) for context, _ in item.requests}
        return sum(contexts.values()) + sum(len(continuation) for _, continuation in item.requests)
    generation = item.generation or Generation(256)
    prompt = item.prompt or ()
    length = sum(len(turn["content"]) // 4 if isinstance(turn, Mapping) else 1 for turn in prompt)
    return length + generation.max_new_tokens * generation.n


def run(
    plans: Sequence[Plan],
    model: LanguageModel,
    protocol: ProtocolName,
    ranks: Ranks,
    progress: Progress,
    seed: int,
    keep: Callable[[str, Sequence[Record]], None],
) -> None:
    """Answers and grades all items; hands records of all ranks to `keep` after each chunk. Collective."""
    progress.start(sum(sum(each.weights) for each in plans))
    for each in plans:
        items = each.items
        if items is None:
            items = each.type.make_items(each.task, each.rows, each.indices, model, protocol)
        chunks = list(chunked(items, each.weights))
        for number in range(max(ranks.gather(len(chunks)))):
            chunk, tokens = chunks[number] if number < len(chunks) else ([], 0)
            records = together(ranks, lambda each=each, chunk=chunk: ask(each, chunk, model, protocol, seed))
            keep(each.task.label, [record for part in ranks.gather(records) for record in part])
            progress.update(each.task.label, tokens)
    progress.finish()


def chunked(items: Sequence[Item], weights: Sequence[int]) -> Iterator[tuple[list[Item], int]]:
    """(items, their tokens), the longest first: what does not fit in memory shows at once, and batches pad little."""
    order = sorted(range(len(items)), key=lambda i: -weights[i])
    chunk: list[Item] = []
    tokens = 0
    for i in order:
        if chunk and (tokens + weights[i] > CHUNK_TOKENS or len(chunk) == CHUNK_ITEMS):
            yield chunk, tokens
            chunk, tokens = [], 0
        chunk.append(items[i])
        tokens += weights[i]
    if chunk:
        yield chunk, tokens


def ask(each: Plan, items: Sequence[Item], model: LanguageModel, protocol: ProtocolName, seed: int) -> list[Record]:
    """The records of some items of one task."""
    outputs = answers(each, items, model, seed)
    return [each.type.grade(each.task, item, out, protocol) for item, out in zip(items, outputs, strict=True)]


def answers(
    each: Plan, items: Sequence[Item], model: LanguageModel, seed: int
) -> list[Sequence[Scored] | Sequence[str]]:
    """What the model says to each item: a `Scored` per request, or n texts. Nothing for an item that asks nothing."""
    own = getattr(each.type, "answer", None)
    if own is not None:
        return list(own(each.task, items, model))
    outputs: list[Sequence[Scored] | Sequence[str]] = [[] for _ in items]
    scored = iter(model.score(requests) if (requests := [pair for item in items for pair in item.requests]) else ())
    together_: dict[Generation, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        if item.requests:
            outputs[place] = [next(scored) for _ in item.requests]
        elif item.prompt is not None:
            if item.generation is None:
                raise EvaluationError(f"{each.task.label}: item {item.index} has a prompt and no generation settings")
            together_[item.generation].append(place)
    for settings, places in together_.items():
        prompts = [prompt for place in places if (prompt := items[place].prompt) is not None]
        for place, texts in zip(places, generate(model, prompts, settings, seed), strict=True):
            outputs[place] = texts
    return outputs


def generate(model: LanguageModel, prompts: Sequence[Any], settings: Generation, seed: int) -> list[list[str]]:
    """`model.generate` as an item's settings say."""
    return model.generate(
        prompts,
        max_new_tokens=settings.max_new_tokens,
        stops=settings.stops,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seed=seed,
        n=settings.n,
    )


def with_judge(task: Task, kind: TaskType, judge: Any) -> Task:
    """The task with its judge among the options, where its type wants one."""
    return replace(task, options={**task.options, "judge": judge}) if getattr(kind, "NEEDS_JUDGE", False) else task


def probe(model: LanguageModel) -> list[float] | None:
    """Log-probabilities that tell one model from another of the same name; None where it cannot score the text."""
    if "score" not in model.supports:
        return None
    try:
        ids = model.encode(PROBE)[: model.max_length]
    except (ValueError, KeyError):  # a vocabulary of a few characters
        return None
    if len(ids) < 2:
        return None
    (scored,) = model.score([(ids[:1], ids[1:])])
    return [round(value, 6) if math.isfinite(value) else -1e9 for value in scored.logprobs.tolist()]

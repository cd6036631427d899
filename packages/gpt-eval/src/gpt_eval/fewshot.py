"""Which rows are shown before a question: the samplers of the three protocols, by row number.

A sample depends on (task, seed, row) and on the whole file, never on which rows are evaluated: a part of a file and
any number of ranks see the same prompts.
"""

from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Any

from gpt_eval.errors import EvaluationError
from gpt_eval.task import ProtocolName, Row, Task

CORE_SHUFFLE_SEED = 1337
"""nanochat shuffles the rows of each task before it numbers them; the number seeds the sample."""

Shots = Callable[[int], list[int]]
"""Row number -> the numbers of the rows to show, in order."""


def sampler(task: Task, rows: Sequence[Row], protocol: ProtocolName) -> Shots:
    """The shots of every row of a task."""
    if task.num_fewshot == 0:
        return lambda row: []
    if protocol == "core":
        return core_shots(len(rows), task.num_fewshot, task.fewshot_seed)
    if protocol == "harness":
        return harness_shots(
            rows, task.num_fewshot, task.fewshot_seed, first_n=task.options.get("sampler") == "first_n"
        )
    pools = by_category(rows) if task.has_categories else {None: list(range(len(rows)))}
    table: dict[int, list[int]] = {}
    for pool in pools.values():  # each pool has its own generator, begun anew
        samples = foundry_samples(len(pool), task.num_fewshot, task.fewshot_seed)
        for row, sample in zip(pool, samples, strict=True):
            table[row] = [pool[position] for position in sample]
    return table.__getitem__


def by_category(rows: Sequence[Row]) -> dict[Hashable, list[int]]:
    """{category: row numbers}, categories in alphabetical order, rows in the order of the file."""
    pools: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        pools.setdefault(row["category"], []).append(number)
    return dict(sorted(pools.items()))


def foundry_samples(n: int, num_fewshot: int, seed: int) -> list[list[int]]:
    """The shots of rows 0..n-1 as llm-foundry draws them.

    One generator serves all rows in their order, so row i's shots depend on all draws before. A row that drew itself
    draws another instead. The order within a sample is the iteration order of a Python set of its numbers, filled in
    the order of the draws (llm-foundry, eval/datasets/utils.py): reproducible, because integers hash to themselves.
    """
    rng, everyone = Random(seed), range(n)
    count = min(n - 1, num_fewshot)
    samples = []
    for row in everyone:
        chosen = set(rng.sample(everyone, count))
        if row in chosen:
            chosen.remove(row)
            if len(chosen) < n - 1:
                other = rng.choice(everyone)
                while other in chosen or other == row:
                    other = rng.choice(everyone)
                chosen.add(other)
        samples.append(list(chosen))
    return samples


def core_order(n: int) -> list[int]:
    """Row numbers in the order in which nanochat evaluates them (and cuts off at its max_per_task)."""
    order = list(range(n))
    Random(CORE_SHUFFLE_SEED).shuffle(order)
    return order


def core_shots(n: int, num_fewshot: int, seed: int) -> Shots:
    """nanochat's shots: a generator per place in the shuffled file, seeded with `seed` + place, over all other rows."""
    order = core_order(n)
    place_of = {row: place for place, row in enumerate(order)}
    if num_fewshot > n - 1:
        raise EvaluationError(f"{num_fewshot} shots asked for, the file has {n - 1} other rows; ask for fewer shots")

    def shots(row: int) -> list[int]:
        place = place_of[row]
        others = [other for other in range(n) if other != place]
        return [order[other] for other in Random(seed + place).sample(others, num_fewshot)]

    return shots


def harness_shots(rows: Sequence[Row], num_fewshot: int, seed: int, *, first_n: bool) -> Shots:
    """lm-evaluation-harness's shots where they come from the evaluated file itself.

    One generator serves all rows in their order and draws one row more than needed. Rows equal to the question (not
    only the question itself) are dropped, and the first ones of the others kept. Where copies of the question leave too
    few, they are drawn anew from the rows that differ (lm-eval 0.4.13; earlier ones fail). `first_n` takes the first
    rows of the file instead.
    """
    n = len(rows)
    if num_fewshot > n - 1:
        raise EvaluationError(f"{num_fewshot} shots asked for, the file has {n - 1} other rows; ask for fewer shots")
    rng, table = Random(seed), []
    for row in rows:
        drawn: Sequence[int] = range(n) if first_n else rng.sample(range(n), num_fewshot + 1)
        kept = _first(drawn, num_fewshot, rows, row)
        if len(kept) < num_fewshot:
            others = [number for number, other in enumerate(rows) if other != row]
            if len(others) < num_fewshot:
                raise EvaluationError(
                    f"{num_fewshot} shots asked for, {len(others)} rows of the file differ from the question; ask for "
                    "fewer shots"
                )
            kept = rng.sample(others, num_fewshot)
        table.append(kept)
    return table.__getitem__


def _first(drawn: Sequence[int], count: int, rows: Sequence[Row], question: Any) -> list[int]:
    """The first `count` numbers whose rows differ from the question."""
    kept = []
    for number in drawn:
        if len(kept) == count:
            break
        if rows[number] != question:
            kept.append(number)
    return kept

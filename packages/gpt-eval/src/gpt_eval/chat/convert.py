"""Rows of public data sets as rows of chat benchmarks: pure functions, one per data set, and nanochat's order.

Each takes a row as its hub has it and returns ours; `SOURCES` says which data set, configuration and split a task has.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt_eval.chat import spellingbee
from gpt_eval.task import Row


class Source(NamedTuple):
    """Where the rows of a task come from."""

    dataset: str
    config: str | None
    split: str
    convert: Callable[[Row], dict[str, Any]]
    shuffled: bool
    """Written in nanochat's order."""


def shuffled(rows: Sequence[Row], seed: int = 42) -> list[Row]:
    """The order of `datasets.shuffle(seed)`: numpy's default_rng(seed).permutation."""
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


def from_arc(row: Row) -> dict[str, Any]:
    """ai2_arc: choices as {text[], label[]}, the answer a label. Labels are letters, in some rows 1-4."""
    labels = list(row["choices"]["label"])
    gold = labels.index(row["answerKey"])
    return {"question": row["question"], "choices": list(row["choices"]["text"]), "gold": gold, "letters": labels}


def from_mmlu(row: Row) -> dict[str, Any]:
    """cais/mmlu: the answer as a number."""
    return {
        "question": row["question"],
        "choices": list(row["choices"]),
        "gold": int(row["answer"]),
        "category": row["subject"],
    }


def from_gsm8k(row: Row) -> dict[str, Any]:
    return {"question": row["question"], "answer": row["answer"]}


def from_human_eval(row: Row) -> dict[str, Any]:
    kept = {name: row[name] for name in ("task_id", "prompt", "canonical_solution", "test", "entry_point")}
    return kept | {"language": "python"}


def from_ifeval(row: Row) -> dict[str, Any]:
    """google/IFEval: every kwargs entry has the keys of all instructions, null where they say nothing."""
    given = [{key: value for key, value in each.items() if value} for each in row["kwargs"]]
    return {
        "key": row["key"],
        "prompt": row["prompt"],
        "instruction_id_list": list(row["instruction_id_list"]),
        "kwargs": given,
    }


def from_mt_bench(row: Row) -> dict[str, Any]:
    return {
        "question_id": row["prompt_id"],
        "category": row["category"],
        "turns": list(row["prompt"]),
        "reference": list(row.get("reference") or []),
    }


def from_alpaca(row: Row) -> dict[str, Any]:
    """tatsu-lab/alpaca_eval: instructions with the outputs of the baseline."""
    return {"instruction": row["instruction"], "output": row["output"], "generator": row.get("generator", "")}


def from_flask(row: Row) -> dict[str, Any]:
    """FLASK's evaluation set: text, label_answer or "label answer", metrics."""
    reference = row.get("label_answer", row.get("label answer", "")) or ""
    return {"instruction": row["text"], "reference": reference, "skills": list(row["metrics"])}


SOURCES: Mapping[str, Source] = {
    "chat_arc_easy": Source("allenai/ai2_arc", "ARC-Easy", "test", from_arc, True),
    "chat_arc_challenge": Source("allenai/ai2_arc", "ARC-Challenge", "test", from_arc, True),
    "chat_mmlu": Source("cais/mmlu", "all", "test", from_mmlu, True),
    "chat_gsm8k": Source("openai/gsm8k", "main", "test", from_gsm8k, True),
    "chat_human_eval": Source("openai/openai_humaneval", "openai_humaneval", "test", from_human_eval, True),
    "ifeval": Source("google/IFEval", None, "train", from_ifeval, False),
    "mt_bench": Source("HuggingFaceH4/mt_bench_prompts", None, "train", from_mt_bench, False),
    "alpaca_local": Source("tatsu-lab/alpaca_eval", "alpaca_eval", "eval", from_alpaca, False),
}
"""FLASK is on GitHub only (kaistAI/FLASK): convert its file with `from_flask`."""

MADE: Mapping[str, Callable[[], list[dict[str, Any]]]] = {"spellingbee_local": lambda: list(spellingbee.rows())}
"""Rows that no hub has: they are generated."""

"""Programs that a base model completes, run against their tests: HumanEval and its kin, in Python, C++ and JavaScript.

Rows: task_id, prompt, test, entry_point, language (python | c++ | javascript; python where absent). Prompts are used as
they are, never stripped. `correct` is pass@k for the smallest k asked for; every pass@k is a metric.
Only plain data passes between a Python program and its test: a test that hands the program a function, a class or an
open file fails it, whatever the program does, so such a benchmark is not supported (HumanEval has none).
Options: pass_at_k (1, or several), generations_per_sample (greedy: 1), temperature (0.2 with several samples), top_p
(0.95), max_new_tokens (1024, or what the model's context leaves after the file's longest prompt where that is less),
seconds (5, of a program).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gpt_eval.chat.pass_at_k import pass_at_k
from gpt_eval.chat.program import STOPS, base_program
from gpt_eval.errors import EvaluationError
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.sandbox import Execution, Limits, isolation, run_native, run_python
from gpt_eval.sandbox.execute import NEEDED, toolchain
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task

NEEDS: frozenset[Capability] = frozenset({"generate"})
EXECUTES_CODE = True
LANGUAGES = ("python", "c++", "javascript")
CLOSING_BRACE = ("\n}",)
NEW_TOKENS, LEAST_NEW_TOKENS = 1024, 64
WORKERS = 2
"""Programs that run at once."""


def check_row(row: Row, task: Task) -> str | None:
    """prompt, test and entry_point, and a language that can be run."""
    for key in ("prompt", "test", "entry_point"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            return f"{key} must be text that is not blank, got {row.get(key)!r}"
    if row.get("language", "python") not in LANGUAGES:
        return f"language must be one of {', '.join(LANGUAGES)}, got {row['language']!r}"
    return None


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """The prompt's tokens to go on from; a row whose language has no compiler here is unscored."""
    isolation()  # a sandbox that does not work shows before anything is generated
    length = answer_length(task, rows, model)
    items = []
    for index in indices:
        row = rows[index]
        language = row.get("language", "python")
        settings = sampling(task, STOPS if language == "python" else CLOSING_BRACE, length)
        ids = model.encode(row["prompt"], specials=True)
        room = model.max_length - settings.max_new_tokens
        reason = missing_tool(language)
        items.append(
            Item(
                index=index,
                gold=row["entry_point"],
                prompt=None if reason else ids[-room:],
                generation=settings,
                truncated=len(ids) > room,
                unscored=reason,
                detail=row,
            )
        )
    return items


def answer_length(task: Task, rows: Sequence[Row], model: LanguageModel) -> int:
    """Tokens that an answer may have, the same for all rows of a file.

    Raises EvaluationError where the option asks for so many that no prompt fits before them, or where, without the
    option, the longest prompt leaves fewer than LEAST_NEW_TOKENS.
    """
    if "max_new_tokens" in task.options:
        length = int(task.options["max_new_tokens"])
        if length < model.max_length:
            return length
        raise EvaluationError(
            f"{task.name}: max_new_tokens {length} leaves no room for a prompt in "
            f"{model.max_length} tokens; set the option max_new_tokens lower"
        )
    longest = max(len(model.encode(row["prompt"], specials=True)) for row in rows)
    left = model.max_length - longest
    if left < LEAST_NEW_TOKENS:
        raise EvaluationError(
            f"{task.name}: the longest prompt has {longest} tokens and leaves {max(left, 0)} of {model.max_length} for "
            f"an answer, expected at least {LEAST_NEW_TOKENS}; with the option max_new_tokens long prompts are cut"
        )
    return min(NEW_TOKENS, left)


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """Runs every sample with the row's test."""
    row = item.detail
    programs = [program(row, str(text)) for text in outputs]
    return graded(task, item, programs, prelude=row["prompt"])


def program(row: Row, completion: str) -> str:
    """What is run: a Python program without its test, a C++ or JavaScript one with it."""
    if row.get("language", "python") == "python":
        return base_program(row["prompt"], completion)
    body, brace, _ = completion.partition(CLOSING_BRACE[0])
    return f"{row['prompt']}{body}{brace}\n{row['test']}\n"


def graded(task: Task, item: Item, programs: Sequence[str], prelude: str) -> Record:
    """The record of n programs for one problem; equal programs run once."""
    digest = hashlib.sha256(repr(item.prompt).encode()).hexdigest()
    if item.unscored:
        return Record(item.index, float("nan"), None, item.gold, unscored=item.unscored, prompt_sha256=digest)
    row, limits = item.detail, Limits(seconds=float(task.options.get("seconds", 5.0)))
    different = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(WORKERS) as pool:
        ran = dict(zip(different, pool.map(lambda each: run(row, each, prelude, limits), different), strict=True))
    passes = [ran[each].passed for each in programs]
    scores = {f"pass@{k}": pass_at_k(len(programs), sum(passes), k) for k in wanted_ks(task)}
    return Record(
        index=item.index,
        correct=scores[f"pass@{wanted_ks(task)[0]}"],
        prediction=passes,
        gold=item.gold,
        metrics=scores,
        truncated=item.truncated,
        prompt_sha256=digest,
        detail={
            "executions": [{"program": source, **ran[source].as_dict()} for source in different],
            "samples": [different.index(each) for each in programs],
            "max_new_tokens": item.generation.max_new_tokens if item.generation else None,
        },
    )


def run(row: Row, source: str, prelude: str, limits: Limits) -> Execution:
    language = row.get("language", "python")
    if language == "python":
        return run_python(source, row["test"], entry_point=row["entry_point"], prelude=prelude, limits=limits)
    return run_native(language, source, limits=limits)


def summarize(task: Task, records: Sequence[Record]) -> dict[str, Any]:
    """What held the programs, how long they could be, and how many of them took too long or too much."""
    executions = [each for record in records for each in record.detail.get("executions", ())]
    lengths = [length for record in records if (length := record.detail.get("max_new_tokens")) is not None]
    return {
        "max_new_tokens": max(lengths, default=None),
        "isolation": sorted({name for each in executions for name in each["isolation"]}),
        "n_programs": len(executions),  # different ones: equal samples of a problem run once
        "n_timeouts": sum(each["timeout"] for each in executions),
        "n_out_of_memory": sum(each["memory"] for each in executions),
        "n_unscored": sum(record.unscored is not None for record in records),
    }


def sampling(task: Task, stops: tuple[str, ...], max_new_tokens: int) -> Generation:
    """One greedy completion, or n samples. Raises EvaluationError where k of pass@k is more than n."""
    n = int(task.options.get("generations_per_sample", 1))
    temperature = float(task.options.get("temperature", 0.2 if n > 1 else 0.0))
    if temperature == 0.0:
        n = 1  # all greedy completions of a prompt are the same
    if n < wanted_ks(task)[-1]:
        raise EvaluationError(
            f"{task.name}: pass@{wanted_ks(task)[-1]} needs at least as many samples, got {n} "
            "(generations_per_sample, with temperature above 0)"
        )
    length = int(task.options.get("max_new_tokens", max_new_tokens))
    top_p = float(task.options.get("top_p", 0.95 if n > 1 else 1.0))
    return Generation(length, stops=stops, temperature=temperature, top_p=top_p, n=n)


def wanted_ks(task: Task) -> list[int]:
    given = task.options.get("pass_at_k", 1)
    return sorted({int(k) for k in (given if isinstance(given, (list, tuple)) else [given])})


def missing_tool(language: str) -> str | None:
    """Why a language cannot be run on this machine."""
    if language == "python" or toolchain(language):
        return None
    return f"{language} programs need {NEEDED[language]}, which is not here"

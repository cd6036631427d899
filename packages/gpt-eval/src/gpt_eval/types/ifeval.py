"""IFEval: prompts with instructions that a program checks. Rows: key, prompt, instruction_id_list[], kwargs[].

`correct` is whether all instructions of a prompt were followed, read strictly. The result also has the four published
metrics. Where Punkt is missing, prompts that count sentences or capital words are left out, said as `partial`.
Options: punkt (a folder), sentences ("regex": our own splitter instead, named in the result), max_new_tokens (1280).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gpt_eval.chat.prompts import chat_item, prompt_sha256
from gpt_eval.ifeval import language
from gpt_eval.ifeval.checks import CHECKS, arguments
from gpt_eval.ifeval.sentences import splitter
from gpt_eval.ifeval.verify import verify
from gpt_eval.model import Capability, LanguageModel, Scored
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task

DETECTS = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")
"""Instructions that detect a language."""
NEEDS: frozenset[Capability] = frozenset({"chat"})
METRICS = ("prompt_level_strict", "inst_level_strict", "prompt_level_loose", "inst_level_loose")


def check_row(row: Row, task: Task) -> str | None:
    """A prompt, and known instructions with every argument that they need."""
    names, given = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        return f"prompt must be text, got {row.get('prompt')!r}"
    if not isinstance(names, list) or not names or not isinstance(given, list) or len(names) != len(given):
        return "instruction_id_list and kwargs must be lists of one length, at least 1"
    for name, each in zip(names, given, strict=True):
        if name not in CHECKS:
            return f"unknown instruction {name!r}, expected one of {', '.join(CHECKS)}"
        try:
            arguments(name, each)
        except (ValueError, AttributeError) as error:
            return str(error)
    return None


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """The prompt as one user turn; greedy, no stop strings."""
    _splitter(task)  # what is wrong with the option shows before anything is generated
    if any(name in DETECTS for i in indices for name in rows[i]["instruction_id_list"]):
        language.installed()
    settings = Generation(max_new_tokens=int(task.options.get("max_new_tokens", 1280)))
    return [
        chat_item(i, rows[i]["prompt"], settings, gold=rows[i]["instruction_id_list"], row=rows[i]) for i in indices
    ]


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """Every instruction strictly and loosely; NaN (left out) for a prompt with one that cannot be checked."""
    row, response = item.detail, str(outputs[0])
    verdict = verify(response, row["instruction_id_list"], row["kwargs"], _splitter(task))
    return Record(
        index=item.index,
        correct=float(all(verdict.strict)) if verdict.scorable else float("nan"),
        prediction=None,
        gold=item.gold,
        unscored=verdict.unscored,
        prompt_sha256=prompt_sha256(item),
        detail={"response": response, "strict": list(verdict.strict), "loose": list(verdict.loose)},
    )


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """The four published metrics over the prompts that could be scored whole, and which splitter counted."""
    whole = [record for record in records if None not in record.detail["strict"]]
    found: dict[str, Any] = dict.fromkeys(METRICS)
    for mode in ("strict", "loose"):
        lists = [record.detail[mode] for record in whole]
        if lists:
            flat = [followed for each in lists for followed in each]
            found[f"prompt_level_{mode}"] = sum(map(all, lists)) / len(lists)
            found[f"inst_level_{mode}"] = sum(flat) / len(flat)
    chosen = _splitter(task)
    found |= {
        "sentence_splitter": chosen.name if chosen else None,
        "n_unscored": len(records) - len(whole),
        "partial": len(whole) < len(records) or (chosen is not None and chosen.name != "punkt"),
    }
    return found if whole else found | {"accuracy": None}


def _splitter(task: Task):
    return splitter(task.options.get("punkt"), task.options.get("sentences"))

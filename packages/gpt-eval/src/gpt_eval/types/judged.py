"""Answers that another model rates: MT-Bench, AlpacaEval (as `alpaca_local`), FLASK.

Option `benchmark` says which; rows are described in `gpt_eval.judge.benchmarks`. The judge comes from the runner.
`correct` is the row's value as a share of the scale's top, NaN where the judge's verdict could not be read twice. More
than 5 % of those withdraw the score. Nothing here is comparable with a published leaderboard, and the result says so.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from gpt_eval.chat.prompts import chat_item, prompt_sha256
from gpt_eval.errors import EvaluationError, JudgeRequired
from gpt_eval.judge.benchmarks import BENCHMARKS, JudgedBenchmark, detail
from gpt_eval.judge.prompts import VERSION
from gpt_eval.judge.statistics import bootstrap_interval
from gpt_eval.model import Capability, LanguageModel, Message, Scored
from gpt_eval.task import Generation, Item, ProtocolName, Record, Row, Task

NEEDS: frozenset[Capability] = frozenset({"chat"})
NEEDS_JUDGE = True
LABEL = "local judge, not comparable with published leaderboards"
MOST_FAILURES = 0.05


def check_row(row: Row, task: Task) -> str | None:
    """As its benchmark wants it."""
    return benchmark(task).check(row)


def make_items(
    task: Task, rows: Sequence[Row], indices: Sequence[int], model: LanguageModel, protocol: ProtocolName
) -> list[Item]:
    """The first turn; `answer` goes on with the others."""
    kind = benchmark(task)
    if task.options.get("judge") is None:
        raise JudgeRequired(f"{task.name} needs --judge-url and --judge-model; nothing was run")
    items = []
    for index in indices:
        row = rows[index]
        settings = Generation(kind.max_new_tokens, temperature=kind.temperature(row))
        items.append(chat_item(index, kind.turns(row)[0], settings, gold=None, row=row))
    return items


def answer(task: Task, items: Sequence[Item], model: LanguageModel) -> list[list[str]]:
    """The model's answer to every turn, each given the ones before."""
    kind = benchmark(task)
    talks: list[list[Message]] = [[] for _ in items]
    answers: list[list[str]] = [[] for _ in items]
    for turn in range(max((len(kind.turns(item.detail)) for item in items), default=0)):
        together: dict[float, list[int]] = defaultdict(list)
        for place, item in enumerate(items):
            if turn < len(kind.turns(item.detail)):
                talks[place].append({"role": "user", "content": kind.turns(item.detail)[turn]})
                together[kind.temperature(item.detail)].append(place)
        for temperature, places in together.items():
            prompts = [list(talks[place]) for place in places]
            found = model.generate(prompts, max_new_tokens=kind.max_new_tokens, temperature=temperature)
            for place, (text,) in zip(places, found, strict=True):
                answers[place].append(text)
                talks[place].append({"role": "assistant", "content": text})
    return answers


def grade(task: Task, item: Item, outputs: Sequence[Scored] | Sequence[str], protocol: ProtocolName) -> Record:
    """Asks the judge."""
    kind, answers = benchmark(task), [str(text) for text in outputs]
    judged = kind.judge(task.options["judge"], item.detail, answers)
    readable = judged.value is not None
    return Record(
        index=item.index,
        correct=judged.value / kind.top if judged.value is not None else float("nan"),
        prediction=judged.value,
        gold=None,
        metrics=dict(judged.parts) if readable else {},
        unscored=None if readable else "the judge's verdict could not be read",
        prompt_sha256=prompt_sha256(item),
        detail={"answers": answers, **detail(judged), "category": item.detail.get("category")},
    )


def summarize(task: Task, records: Sequence[Record]) -> Mapping[str, Any]:
    """The mean on the benchmark's scale with its interval, the judge, and how many verdicts could not be read."""
    kind, judge = benchmark(task), task.options["judge"]
    values = [record.detail["value"] for record in records if record.detail["value"] is not None]
    verdicts = [verdict for record in records for verdict in record.detail["verdicts"]]
    failed = sum(verdict["value"] is None for verdict in verdicts)
    reasons = []
    if getattr(judge, "for_tests", False):
        reasons.append("a judge for tests")
    if verdicts and failed > MOST_FAILURES * len(verdicts):
        reasons.append(f"{failed} of {len(verdicts)} verdicts could not be read")
    interval = bootstrap_interval(values)
    found: dict[str, Any] = {
        "label": LABEL,
        "judge": judge.id,
        "judge_prompts": VERSION,
        "judge_temperature": 0.0,
        "judge_parse_failures": failed,
        "n_judged": len(values),
        "scale": [kind.lowest, kind.top],
        "score": sum(values) / len(values) if values and not reasons else None,
        "interval_95": list(interval) if interval and not reasons else None,
        "parts": means_of_parts(records),
    }
    if task.options["benchmark"] == "mt_bench":
        found["categories"] = means_of_categories(records)
    if reasons or not values:
        found |= {"accuracy": None, "withdrawn": "; ".join(reasons) or "nothing was judged"}
    return found


def means_of_parts(records: Sequence[Record]) -> dict[str, float]:
    """Per turn, per skill, or lengths and consistency: the mean over the rows that have it."""
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in record.detail["parts"].items():
            values[name].append(value)
    return {name: sum(each) / len(each) for name, each in sorted(values.items())}


def means_of_categories(records: Sequence[Record]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.detail["value"] is not None:
            values[record.detail["category"]].append(record.detail["value"])
    return {name: sum(each) / len(each) for name, each in sorted(values.items())}


def benchmark(task: Task) -> JudgedBenchmark:
    name = str(task.options.get("benchmark"))
    if name not in BENCHMARKS:
        raise EvaluationError(f"{task.name}: option benchmark must be one of {', '.join(BENCHMARKS)}, got {name!r}")
    return BENCHMARKS[name]

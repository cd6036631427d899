"""`apps/evaluate MODEL`: loads a model, evaluates it on all ranks, shows and keeps the scores."""

import sys
from collections.abc import Sequence
from pathlib import Path

import command_line
import targets

from gpt_core.distributed import Distributed, distributed
from gpt_eval.data.bundle import Bundle
from gpt_eval.errors import EvaluationError
from gpt_eval.evaluate import builtin_tasks, evaluate
from gpt_eval.progress import ConsoleProgress
from gpt_eval.ranks import OneProcess, TorchRanks
from gpt_eval.report import table, write_results
from gpt_eval.results import Results
from gpt_eval.runner import load_type
from gpt_eval.suites.select import select


def main(argv: Sequence[str], description: str) -> None:
    options = command_line.parse(argv, description)
    with distributed(options.device) as process:
        score(options, process)


def score(options: command_line.Options, process: Distributed) -> None:
    """Evaluates and shows; on every rank, of which the first one prints and writes."""
    targets.refuse_strangers(options)
    refuse_names(options)
    judge = targets.load_judge(options)
    model = targets.load(options, process.device)
    output = options.output or default_output(model.name, options)
    try:
        results = evaluate(
            model,
            options.suite,
            options.bundle,
            protocol=options.protocol,
            limit=options.limit,
            output=output,
            resume=not options.no_resume,
            ranks=OneProcess() if process.world_size == 1 else TorchRanks(),
            allow_code_execution=options.allow_code_execution,
            judge=judge,
            allow_self_judge=options.allow_self_judge,
            seed=options.seed,
            progress=None if options.quiet else ConsoleProgress(),
        )
    except KeyboardInterrupt:
        say(f"interrupted; {output / 'samples.jsonl'} keeps what is done, the same command goes on from there")
        raise
    if process.is_main:
        show(results, output, pictures=not options.no_plot)


def refuse_names(options: command_line.Options) -> None:
    """Raises EvaluationError for tasks and data that are not there, before a model is loaded, which may take long.

    Not where a judge or a permission is wanted: `evaluate` says first which of them is missing.
    """
    try:
        select(options.suite, Bundle(options.bundle))
    except EvaluationError:
        kinds = [load_type(task) for task in builtin_tasks(options.suite)]
        if not any(getattr(kind, "NEEDS_JUDGE", False) or getattr(kind, "EXECUTES_CODE", False) for kind in kinds):
            raise


def default_output(name: str, options: command_line.Options) -> Path:
    """A folder of its own for each model, suite and protocol."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name).strip("-.")
    suite = options.suite if len(options.suite) < 60 else f"{options.suite[:50]}-and-more"
    return Path("out/evaluate") / (plain or "model") / f"{suite}-{options.protocol}"


def show(results: Results, output: Path, *, pictures: bool) -> None:
    """The table to stdout; report and pictures beside results.json."""
    print(table(results))
    for path in write_results(results, output, pictures=pictures, notify=say):
        say(f"wrote {path}")


def say(message: str) -> None:
    """To stderr: stdout holds only the scores."""
    print(message, file=sys.stderr)

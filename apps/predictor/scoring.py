"""`--evaluate`: exact answers of a trained predictor, by style and number of operations, with intervals."""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from asking import say
from trained import add_model_options, open_predictor, reads_words

from gpt_core.checkpoint import find_checkpoint, load_model
from gpt_dag.evaluation import TASKS, Item, Scores, baselines, draw_items, read_items, score
from gpt_dag.evaluation.report import accuracy_plot, accuracy_table
from gpt_dag.evaluation.tag_metrics import tag_metrics
from gpt_dag.predictor import PredictorOnlyModel, read
from gpt_dag.stream import Law, sample
from gpt_dag.tokens import WordTokenizer

FINAL_SEED, FINAL_EACH, FINAL_MOST = 20, 100, 8
"""The table at the end of a training run: so many expressions of each number of operations."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="apps/predictor", description=__doc__)
    add = parser.add_argument
    add("--evaluate", required=True, metavar="FILE", help=f"jsonl with english and fraction; or {', '.join(TASKS)}")
    add("--seed", type=int, default=0, help="of a task's fresh expressions (default: 0)")
    add("--number", type=int, help="how many expressions a task draws (length: of each length)")
    add_model_options(parser)
    options = parser.parse_args(argv)
    items = items_of(options)
    model, _, source = open_predictor(options)
    started = time.process_time()
    scores = score(answerer(model), items)
    seconds = time.process_time() - started
    say(report(scores))
    say(f"\n{len(items)} expressions of {options.evaluate} read by {source} in {seconds:.1f} CPU seconds")
    print(json.dumps(scores.figures()))
    return 0


def items_of(options: argparse.Namespace) -> list[Item]:
    path, task = Path(options.evaluate), TASKS.get(options.evaluate)
    if path.is_file():
        return read_items(path)
    if task is None:
        raise ValueError(f"--evaluate needs a jsonl file, or one of {', '.join(TASKS)}; got {options.evaluate!r}")
    number = {} if options.number is None else {"n": options.number}
    return task(seed=options.seed, **number)


def answerer(model: PredictorOnlyModel) -> Any:
    """Answers that are the network's alone: the deterministic reader has no part in them."""

    def answer(texts: Sequence[str]) -> list[Fraction | None]:
        return [reading.answer for reading in read(model, WordTokenizer(), texts)]

    return answer


def report(scores: Scores) -> str:
    """The table, baselines beside the network."""
    others = {name: Scores(scores.items, answers) for name, answers in baselines(scores.items).items()}
    return accuracy_table(scores, others)


def conclude(run_dir: Path, data: Mapping[str, Any]) -> None:
    """What a finished run can do: a table, `report/accuracy.png` and `report/accuracy.json`."""
    if json.loads((run_dir / "summaries.json").read_text(encoding="utf-8"))["status"] != "completed":
        return  # who interrupts a run wants it to end
    seconds = time.process_time()
    model = load_model(find_checkpoint(run_dir))
    assert isinstance(model, PredictorOnlyModel)
    if not reads_words(model):
        say("trained on GPT-2's tokens: the accuracy that counts is val/acc, whole expressions")
        return
    law = {field.name: data[field.name] for field in fields(Law) if field.name in data}
    law |= {"styles": tuple(law["styles"])} if "styles" in law else {}
    items = final_items(law)
    scores = score(answerer(model), items)
    say(f"\n{seconds / 60:.1f} CPU minutes from the start of this process, all threads: data, training, validation")
    say(f"\nFresh expressions of the test split, none of them ever trained on:\n\n{report(scores)}")
    tags = final_tags(model, law)
    say(f"\nOf single tags and numbers, in brackets what the commonest class scores:\n\n{tag_lines(tags)}")
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    figures = {**scores.figures(), **{f"test/{name}": value for name, value in tags.items()}}
    (folder / "accuracy.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    longest = law.get("max_ops", Law().max_ops)
    try:
        flat = Scores(items, baselines(items)["left to right"])
        lines = {run_dir.name: scores.by_ops(), "baseline: left to right": flat.by_ops()}
        say(f"\nplot: {accuracy_plot(lines, folder / 'accuracy.png', longest)}")
    except ImportError as error:  # matplotlib is an extra; a finished run does not fail for want of a picture
        say(f"\nno plot: {error}")
    say('ask it: uv run apps/predictor --ask "five plus two times three"')


def final_tags(model: PredictorOnlyModel, law: dict[str, Any]) -> dict[str, float]:
    """Of the test split, drawn as the run's training data is."""
    layout = sample(Law(**law), 4 * FINAL_EACH, FINAL_SEED, split="test").layout
    return tag_metrics(model, [(layout.ids, layout.tags)])


def tag_lines(metrics: Mapping[str, float]) -> str:
    shown = {name: value for name, value in metrics.items() if not name.startswith("baseline/")}
    base = {name: f" ({metrics['baseline/' + name]:.3f})" for name in shown if f"baseline/{name}" in metrics}
    return "\n".join(f"{name:<14}{value:.5f}{base.get(name, '')}" for name, value in shown.items())


def final_items(law: dict[str, Any]) -> list[Item]:
    """By number of operations; of the legacy shape as its own law has them."""
    if law.get("shape") == "right":
        return draw_items(Law(**law), 8 * FINAL_EACH, FINAL_SEED)
    items = []
    for operations in range(1, max(FINAL_MOST, law.get("max_ops", 0)) + 1):
        of_this_many: dict[str, Any] = {**law, "min_ops": operations, "max_ops": operations}
        items += draw_items(Law(**of_this_many), FINAL_EACH, FINAL_SEED)
    return items

"""`--ask`: one expression in words or symbols to a tree, the value of every node and the exact answer.

The network reads, and the deterministic reader of gpt-dag reads beside it: where they differ there is no answer.
"""

import argparse
import sys
from collections.abc import Sequence

from trained import add_model_options, open_predictor

from gpt_core.monitor.text import printable
from gpt_dag.english import parse_english
from gpt_dag.parse import ParseError
from gpt_dag.predictor import Reading, read
from gpt_dag.predictor.agreement import disagreement
from gpt_dag.predictor.drawing import draw_tree, exact


def main(argv: Sequence[str]) -> int:
    """Exit status 1: no answer."""
    parser = argparse.ArgumentParser(prog="apps/predictor", description=__doc__)
    parser.add_argument("--ask", required=True, metavar="TEXT", help="the expression")
    add_model_options(parser)
    options = parser.parse_args(argv)
    model, tokenizer, source = open_predictor(options)
    reading = read(model, tokenizer, [options.ask])[0]
    problem = check(reading)
    if problem is not None:
        what, position = problem
        say(f"no answer: {what}")
        show_place(reading.text, position)
        return 1
    assert reading.answer is not None
    say(f"{draw_tree(reading)}\n\n{reading.expression} = {exact(reading.answer)}\n\nread by {source}")
    return 0


def check(reading: Reading) -> tuple[str, int | None] | None:
    """Why there is no answer, and where; None: there is one, and both readers agree on it."""
    if reading.problem is not None and reading.expression is None:
        return reading.problem, reading.position
    try:
        wanted = parse_english(reading.text)
    except ParseError as error:
        return error.problem, error.position
    found = disagreement(reading, wanted)
    return found or (None if reading.problem is None else (reading.problem, reading.position))


def show_place(text: str, position: int | None, around: int = 60) -> None:
    """The text with a caret under the character."""
    if position is None:
        return
    start = max(0, position - around)
    line = " ".join(text[start : position + around].splitlines()) if text else ""
    say(f"  {line}\n  {' ' * (position - start)}^ character {position}")


def say(text: str) -> None:
    print(printable(text, sys.stdout))

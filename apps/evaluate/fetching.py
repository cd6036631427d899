"""`apps/evaluate fetch`: benchmarks from their hubs, converted into a bundle's JSONL."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="apps/evaluate fetch",
        description="Downloads benchmarks and writes them into a bundle: JSONL, and their sha256 in index.yaml.",
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="a task, or a suite")
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="made where there is none")
    options = parser.parse_args(argv)
    from gpt_eval.data.fetch import fetch

    for path, rows in fetch(options.tasks, options.bundle):
        print(f"{path}: {rows} rows", file=sys.stderr)

"""`apps/evaluate compare`: is one model better than another, on the same items?"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gpt_eval.compare import compare, comparison_table, load_results


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="apps/evaluate compare",
        description="Differences of the second and further results from the first, with 95 % intervals (paired "
        "bootstrap over items) and McNemar's exact p-values. Both must have been asked the same items.",
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="FOLDER", help="--output of apps/evaluate")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    options = parser.parse_args(argv)
    if len(options.results) < 2:
        parser.error("give at least two folders with results")
    first, *others = map(load_results, options.results)
    tables = [comparison_table(first, other, compare(first, other, seed=options.seed)) for other in others]
    print("\n\n".join(tables))

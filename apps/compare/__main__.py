"""Compare training runs: a table sorted by validation loss and a picture of the curves.

uv run apps/compare out/run1 out/run2      these runs
uv run apps/compare --latest 5             the five newest below out/
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt_core.monitor import Run, RunError, comparison, latest_runs, read_run
from gpt_core.monitor.compare import compare_runs, compare_table, different_vocabularies


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 if at least one run could be compared and none was broken, 1 otherwise."""
    options = parse(argv)
    try:
        paths = options.runs or latest_runs(options.out_dir, options.latest)
    except RunError as error:
        return fail(str(error))
    if not paths:
        return fail(f"no runs below {options.out_dir}; train one with `uv run apps/pretrain` or give run folders")
    runs, errors = read_all(paths)
    for error in errors:
        print(f"skipped: {error}", file=sys.stderr)
    if not runs:
        return fail("none of these runs could be read")
    rows = compare_runs(runs)
    if options.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
    else:
        show(rows)
    if not options.no_plot:
        order = {row["path"]: row["rank"] for row in rows}
        runs.sort(key=lambda run: order[str(run.path)])
        plot(runs, options.plot or options.out_dir / "comparison.png")
    # An explicitly named run that is broken is a failure; one that `--latest` came across is not.
    return 1 if errors and options.runs else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="apps/compare", description="Compare training runs by validation loss, time and MFU."
    )
    parser.add_argument("runs", nargs="*", type=Path, help="run folders, metrics.jsonl or run.json files")
    parser.add_argument("--latest", type=positive, metavar="N", help="compare the N newest runs below --out_dir")
    parser.add_argument("--out_dir", "--out-dir", type=Path, default=Path("out"), help="where runs are (default: out)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="the picture (default: OUT_DIR/comparison.png)")
    parser.add_argument("--no_plot", "--no-plot", action="store_true", help="draw no picture")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args(argv)
    if options.runs and options.latest:
        parser.error("give run folders or --latest N, not both")
    return options


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def read_all(paths: Sequence[Path]) -> tuple[list[Run], list[RunError]]:
    """The readable runs, and why the others are not."""
    runs: list[Run] = []
    errors: list[RunError] = []
    for path in paths:
        try:
            runs.append(read_run(path))
        except RunError as error:
            errors.append(error)
    return runs, errors


def show(rows: list[dict]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file or a pipe has no width to respect
    console.print(compare_table(rows))
    if different_vocabularies(rows):
        console.print("These runs use different vocabularies: compare bits per byte (bpb), not loss per token.")


def plot(runs: Sequence[Run], path: Path) -> None:
    try:
        print(f"wrote {comparison(runs, path)}", file=sys.stderr)
    except (ImportError, ValueError, OSError) as error:
        print(f"no picture: {error}", file=sys.stderr)


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

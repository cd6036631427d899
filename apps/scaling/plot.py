"""Draw a scaling study: losses over sizes with their fits, optima and tokens over compute, time and MFU, CORE.

uv run apps/scaling plot --logs out/scaling-depth        a sweep, a results.csv, or a folder of runs or logs
Writes scaling-{isoflop,optimum,tokens,time,core} as .png, .pdf and .csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fit import CONVENTIONS, fit_laws
from power_law import DRAWS
from run_logs import gather
from scaling_figures import draw_all


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    rows, warnings = gather(options.logs)
    laws, more = fit_laws(rows, draws=options.draws, seed=options.seed)
    law = laws[0]  # N_scaling where the runs say it
    usable = [row for row in rows if CONVENTIONS[law.convention](row)]
    out = options.out or (options.logs if options.logs.is_dir() else options.logs.parent) / "figures"
    files, undrawn = draw_all(usable, law, out, options.clock)
    for warning in [*warnings, *more, *undrawn]:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{len(usable)} runs; wrote {', '.join(path.name for path in files)} in {out}")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("uv run apps/scaling plot", description=__doc__, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--logs", type=Path, default=Path("out/scaling-depth"), help="a sweep's folder, results.csv, runs or logs")
    add("--out", type=Path, help="folder for the figures (default: figures beside the results)")
    add("--clock", choices=("wall", "cpu"), default="wall", help="time of the steps; cpu: processor seconds")
    add("--draws", type=int, default=DRAWS, help=f"of the bootstrap behind the intervals (default: {DRAWS})")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return made

"""Draw a scaling study: losses over sizes with their fits, optima and tokens over compute, time and MFU, CORE.

uv run apps/scaling plot --logs out/scaling-depth        a sweep, a results.csv, or a folder of runs or logs
Writes scaling-{isoflop,optimum,tokens,time,core} as .png, .pdf and .csv.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import fit
from run_logs import gather
from scaling_figures import draw_all


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    rows, warnings = gather(options.logs)
    laws, more = fit.fit_laws(rows, draws=options.draws, seed=options.seed)
    law = laws[0]  # N_scaling where the runs say it
    usable = [row for row in rows if fit.CONVENTIONS[law.convention](row)]
    out = options.out or (options.logs if options.logs.is_dir() else options.logs.parent) / "figures"
    files, undrawn = draw_all(usable, law, out, options.clock)
    for warning in [*warnings, *more, *undrawn]:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{len(usable)} runs; wrote {', '.join(path.name for path in files)} in {out}")
    return 0


def parser() -> argparse.ArgumentParser:
    made = fit.parser("plot", __doc__, "folder for the figures (default: figures beside the results)")
    made.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="time of the steps; cpu: processor seconds"
    )
    return made

"""Fit the best size for every compute budget, and how it grows with compute.

uv run apps/scaling fit --logs out/scaling-depth        a sweep, a results.csv, or a folder of runs or logs
Writes fit.json and fit.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import scaling_report
from isoflop import Points
from measurement import Measurement, ResultsError, by_budget
from power_law import DRAWS, ScalingLaw, fit_law
from run_logs import gather

CONVENTIONS = {
    "N_scaling": lambda row: row.params_scaling,
    "all parameters": lambda row: row.params_total,
}
"""Ways of counting parameters: those multiplied with every token (blocks and head), and all."""


def main(argv: Sequence[str]) -> int:
    options = parser().parse_args(argv)
    rows, warnings = gather(options.logs)
    laws, more = fit_laws(rows, draws=options.draws, seed=options.seed)
    for warning in [*warnings, *more]:
        print(f"warning: {warning}", file=sys.stderr)
    out = options.out or (options.logs if options.logs.is_dir() else options.logs.parent)
    print(scaling_report.write(laws, rows, out, options.draws, options.seed))
    return 0


def parser(
    command: str = "fit",
    about: str | None = __doc__,
    out: str = "folder for fit.json and fit.md (default: beside the results)",
) -> argparse.ArgumentParser:
    """The options of a command that fits measurements."""
    made = argparse.ArgumentParser(f"uv run apps/scaling {command}", description=about, allow_abbrev=False)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    add = made.add_argument
    add("--logs", type=Path, default=Path("out/scaling-depth"), help="a sweep's folder, results.csv, runs or logs")
    add("--out", type=Path, help=out)
    add("--draws", type=int, default=DRAWS, help=f"of the bootstrap; 0: no intervals (default: {DRAWS})")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    return made


def fit_laws(rows: Sequence[Measurement], *, draws: int = DRAWS, seed: int = 0) -> tuple[list[ScalingLaw], list[str]]:
    """A law for every way of counting that the rows allow, and warnings about the others.

    ResultsError where no row has any count.
    """
    laws, warnings = [], []
    for convention, count in CONVENTIONS.items():
        counted = [row for row in rows if count(row)]
        if len(counted) < len(rows):
            warnings.append(f"{len(rows) - len(counted)} of {len(rows)} runs do not say {convention}: left out there")
        if counted:
            laws.append(fit_law(convention, study_of(counted, convention), draws=draws, seed=seed))
    if not laws:
        raise ResultsError("no run says its parameters: neither their groups nor their total")
    return laws, warnings


def study_of(rows: Sequence[Measurement], convention: str) -> list[Points]:
    """The points of every budget."""
    count = CONVENTIONS[convention]
    return [
        Points.of(budget, [count(r) for r in group], [r.tokens_trained for r in group], [r.val_bpb for r in group])
        for budget, group in by_budget(rows).items()
    ]

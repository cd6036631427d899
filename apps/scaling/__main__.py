"""Scaling laws: train a grid of sizes and budgets, fit the best size for a budget, draw it.

uv run apps/scaling sweep depth --depths 6,8,10,12,14 --budgets 1e18,3e18,6e18 --dry-run    plan and cost
uv run apps/scaling sweep scaling-desk --depths 1,2,3,4,5 --budgets 6e10,2e11,6e11          minutes on a CPU
uv run apps/scaling fit --logs out/scaling-depth                                            optima and power laws
uv run apps/scaling plot --logs out/scaling-depth                                           figures
Each has a --help.
"""

import sys
from importlib import import_module

from gpt_core.exit_status import exit_with

COMMANDS = ("sweep", "fit", "plot")


def main(argv: list[str]) -> int:
    command = argv[1] if len(argv) > 1 else ""
    if command in COMMANDS:
        return import_module(command).main(argv[2:])
    print(__doc__)
    if command in ("-h", "--help"):
        return 0
    raise ValueError(f"got {command or 'nothing'}, expected one of {', '.join(COMMANDS)}")


if __name__ == "__main__":
    exit_with(main, sys.argv)  # after Ctrl-C the same command goes on

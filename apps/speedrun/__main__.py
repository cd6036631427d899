"""Train by the speedrun's recipe, or measure what its tricks are worth.

uv run apps/speedrun                                        train (desk.yaml); --help lists configurations and keys
uv run apps/speedrun speedrun-68                            record 68 of modded-nanogpt, on a GPU
uv run torchrun --nproc-per-node 8 apps/speedrun speedrun-68
uv run apps/speedrun ablate desk --leave-one-out --dry-run  what each trick is worth; ablate --help
uv run apps/speedrun record RUN [RUN ...] --target 3.28     a line of docs/records.md from several runs; record --help
"""

import sys

import ablate
import record
import training

from gpt_core.exit_status import exit_with

COMMANDS = {"ablate": ablate.main, "record": record.main}


def main(argv: list[str]) -> int:
    if len(argv) > 1 and argv[1] in COMMANDS:
        return COMMANDS[argv[1]](argv[2:])
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\n")
    training.main(argv)
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv)

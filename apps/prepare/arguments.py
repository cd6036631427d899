"""The command line of apps/prepare."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt_data.preparation import RECIPES, TOKENIZERS

COMMANDS = {
    "nanogpt": "describe a folder that nanoGPT prepared, in place: nanogpt DIR",
    "speedrun": "describe a folder of the speedrun's token shards, in place: speedrun DIR",
    "verify": "check sizes, sha256 and ids of prepared datasets: verify NAME_OR_DIR...",
    "tokenizers": "compare tokenizers on texts: tokenizers FILE... --tokenizer gpt2 --tokenizer DIR",
    "train-tokenizer": "train a BPE vocabulary: train-tokenizer FILE... --vocab-size N --out DIR",
}
USES: dict[str | None, tuple[str, ...]] = {
    None: ("data_root",),
    "nanogpt": ("gpt2_bpe",),
    "speedrun": ("gpt2_bpe",),
    "verify": ("data_root",),
    "tokenizers": ("tokenizer", "gpt2_bpe", "text_field"),
    "train-tokenizer": ("vocab_size", "out", "text_field", "force"),
}
"""The options of commands; datasets check theirs."""
RECIPE_OPTIONS = ("text_field", "val_one_in", "subset", "revision", "chunks", "template", "val_from", "allow_missing")


def parse(argv: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """The arguments, checked against each other; argparse ends the program with a line that says what is wrong."""
    names = [*RECIPES, *COMMANDS]
    parser = argparse.ArgumentParser(
        prog="apps/prepare", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name: str, help: str, **how: Any) -> None:
        parser.add_argument(*dict.fromkeys((name, name[:2] + name[2:].replace("-", "_"))), help=help, **how)

    parser.add_argument("name", nargs="?", help=f"{', '.join(names)}; nothing: list them")
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders, where the name takes some")
    option("--text", "copies in place of a download", type=Path, nargs="+", default=[], metavar="FILE")
    option("--text-field", "column with the text (default: text, content or document)", metavar="NAME")
    option("--val-one-in", "hold out one row in N, by hash (default 20; of the hub's 2000)", type=int, metavar="N")
    option("--subset", "configuration of a dataset of the hub", metavar="NAME")
    option("--revision", "commit, tag or branch of a dataset of the hub", metavar="NAME")
    option("--chunks", "files of fineweb10B, 100 M tokens each (default 9)", type=int, metavar="N")
    option("--template", "of conversations: chatml (default) or roles", metavar="NAME")
    option("--val-from", "of task_mixture: validate on GSM8K's test rows (default) or held-out train rows")
    option("--allow-missing", "of task_mixture: go on without a task that cannot be had", action="store_true")
    option("--tokenizer", f"{', '.join(TOKENIZERS)}, or a folder of a saved one", action="append", default=[])
    option("--vocab-size", "of a trained tokenizer (default 2048)", type=int, metavar="N")
    option("--gpt2-bpe", "folder with vocab.bpe and encoder.json ($GPT2_BPE_DIR)", type=Path, metavar="DIR")
    option("--out", "the folder to make (default: DATA_ROOT/NAME)", type=Path, metavar="DIR")
    option("--data-root", "default: $DATA_ROOT, else ./data", type=Path, metavar="DIR")
    option("--workers", "threads (default: one per core)", type=int, metavar="N")
    option("--force", "replace the dataset if it exists", action="store_true")
    option("--quiet", "no progress", action="store_true")
    args = parser.parse_args(argv)
    if args.name not in (None, *names):
        parser.error(f"there is no dataset {args.name!r}, expected one of {', '.join(names)}")
    if args.name in COMMANDS and not args.paths:
        parser.error(COMMANDS[args.name])
    if args.name == "train-tokenizer" and not (args.out and args.vocab_size):
        parser.error(COMMANDS[args.name])
    if args.name in USES:
        allowed = {"name", "paths", "quiet", *USES[args.name]}
        given = [key for key, value in vars(args).items() if value != parser.get_default(key)]
        if unused := [f"--{key.replace('_', '-')}" for key in given if key not in allowed]:
            parser.error(f"{args.name or 'the list of datasets'} takes no {', '.join(unused)}")
    if len(args.tokenizer) > 1 and args.name != "tokenizers":
        parser.error("--tokenizer is given more than once; only `tokenizers` compares several")
    return args

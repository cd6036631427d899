"""Prepare a dataset: text becomes a folder of token shards that every loader reads.

uv run apps/prepare                                     list the datasets
uv run apps/prepare stdlib --vocab-size 8192            the Python library on this machine
uv run apps/prepare text notes/ pages.jsonl book.txt    your own text, jsonl, parquet: files and folders
uv run apps/prepare fineweb_edu --subset sample-10BT    from the Hugging Face hub, or --text FILE... for copies
uv run apps/prepare nanogpt DIR                         describe what nanoGPT prepared, in place
uv run apps/prepare verify data/mine                    check every byte of a dataset
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:  # it takes a second
    from gpt_data import DatasetInfo, data_root, describe_nanogpt, describe_speedrun, open_dataset, prepare
    from gpt_data.preparation import (
        RECIPES,
        TOKENIZERS,
        check_tokenizer_replaceable,
        open_tokenizer,
        read_texts,
        save_tokenizer,
        train_on_files,
    )
    from gpt_data.tokenizers import evaluate_tokenizer, tokenizer_table
except KeyboardInterrupt:
    sys.exit(130)

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


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse(argv)
    try:
        return run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "; finished parts are kept, the same command continues" if args.name in RECIPES else ""
        print(f"\nprepare: stopped{kept}.", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [*RECIPES, *COMMANDS]
    parser = argparse.ArgumentParser(
        prog="apps/prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
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
    option("--template", "of task_mixture: chatml (default) or roles", metavar="NAME")
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


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        list_datasets(args.data_root)
    elif args.name == "verify":
        for dataset in args.paths:
            info = open_dataset(dataset, args.data_root)
            info.verify()
            print(f"{info.path}: {sum(s.tokens for s in info.splits.values()):,} tokens are as recorded")
    elif args.name in ("nanogpt", "speedrun"):
        describe = describe_nanogpt if args.name == "nanogpt" else describe_speedrun
        for folder in args.paths:
            show(describe(folder, args.gpt2_bpe))
    elif args.name == "tokenizers":
        chosen = [open_tokenizer(name, args.gpt2_bpe) for name in args.tokenizer or ["gpt2", "byte"]]
        reports = [evaluate_tokenizer(one, read_texts(args.paths, args.text_field)) for one in chosen]
        print(tokenizer_table(reports))
    elif args.name == "train-tokenizer":
        if args.out.exists() and not args.force:
            raise ValueError(f"{args.out}: exists already. Choose another --out, or replace it with --force.")
        check_tokenizer_replaceable(args.out)
        made = train_on_files(args.paths, args.vocab_size, args.text_field, args.quiet)
        save_tokenizer(made, args.out)
        print(f"{args.out}: {made.name}, {made.vocab_size} ids")
    else:
        show(
            prepare(
                args.name,
                [*args.paths, *args.text],
                tokenizer=args.tokenizer[0] if args.tokenizer else None,
                vocab_size=args.vocab_size,
                gpt2_bpe=args.gpt2_bpe,
                out=args.out,
                root=args.data_root,
                force=args.force,
                workers=args.workers,
                quiet=args.quiet,
                **{key: found for key in RECIPE_OPTIONS if (found := getattr(args, key)) is not False},
            )
        )
    return 0


def list_datasets(root: Path | None) -> None:
    """Every name, what it is, and whether it is there."""
    for name, recipe in RECIPES.items():
        there = "prepared" if (data_root(root) / name / "dataset.json").exists() else ""
        print(f"{name:18}{recipe.tokenizer:6}{there:10}{recipe.summary}")
    for name, summary in COMMANDS.items():
        print(f"{name:34}{summary}")
    print(f"\nDatasets are in {data_root(root).absolute()}.  Prepare one: uv run apps/prepare NAME")


def show(info: DatasetInfo) -> None:
    """One line per split."""
    print(f"{info.path}: {info.tokenizer}, {info.vocab_size} ids ({info.dtype})")
    for name, split in info.splits.items():
        print(
            f"{name:>8}  {split.tokens:>13,} tokens  {split.bytes:>13,} bytes  {split.documents:>9,} documents  "
            f"{info.bytes_per_token(name):.2f} bytes/token"
        )


if __name__ == "__main__":
    sys.exit(main())

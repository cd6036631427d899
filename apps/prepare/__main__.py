"""Prepare a dataset: text becomes a folder of token shards that every loader reads.

uv run apps/prepare                                     list the datasets
uv run apps/prepare stdlib --vocab-size 8192            the Python library on this machine
uv run apps/prepare text notes/ pages.jsonl book.txt    your own text, jsonl, parquet: files and folders
uv run apps/prepare chat talks.jsonl --tokenizer DIR    your own conversations, in the tokens of a model
uv run apps/prepare fineweb_edu --subset sample-10BT    from the Hugging Face hub, or --text FILE... for copies
uv run apps/prepare nanogpt DIR                         describe what nanoGPT prepared, in place
uv run apps/prepare verify data/mine                    check every byte of a dataset
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

try:  # it takes a second
    from arguments import COMMANDS, RECIPE_OPTIONS, parse

    from gpt_data import DatasetInfo, data_root, describe_nanogpt, describe_speedrun, open_dataset, prepare
    from gpt_data.preparation import (
        RECIPES,
        check_tokenizer_replaceable,
        open_tokenizer,
        read_texts,
        save_tokenizer,
        train_on_files,
    )
    from gpt_data.tokenizers import evaluate_tokenizer, tokenizer_table
except KeyboardInterrupt:
    sys.exit(130)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse(argv, __doc__)
    try:
        return run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "; finished parts are kept, the same command continues" if args.name in RECIPES else ""
        print(f"\nprepare: stopped{kept}.", file=sys.stderr)
        return 130


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
    for path in sorted(data_root(root).glob("*/dataset.json")):
        if path.parent.name not in RECIPES:
            print(f"{path.parent.name:24}prepared")
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

"""Prepare a dataset: text becomes a folder of token shards that every loader reads.

uv run apps/prepare                                     list the datasets
uv run apps/prepare stdlib --vocab-size 8192            the Python library on this machine
uv run apps/prepare shakespeare_char --text input.txt   a file in place of the download
uv run apps/prepare text notes/ book.txt --tokenizer byte --out data/mine
uv run apps/prepare nanogpt ~/nanoGPT/data/shakespeare  describe what nanoGPT prepared
uv run apps/prepare verify data/mine                    check every byte of a dataset
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt_data import DatasetInfo, data_root, describe_nanogpt, open_dataset, prepare
from gpt_data.preparation import RECIPES, TOKENIZERS

COMMANDS = {
    "nanogpt": "describe a folder that nanoGPT prepared, in place: nanogpt DIR",
    "verify": "check sizes, sha256 and ids of prepared datasets: verify NAME_OR_DIR...",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    args = parse(argv)
    try:
        return run(args)
    except (ValueError, ImportError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nprepare: stopped; finished shards are kept, the same command continues.", file=sys.stderr)
        return 130


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="apps/prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help=f"{', '.join([*RECIPES, *COMMANDS])}; nothing: list them")
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders, where the name takes some")
    parser.add_argument("--text", type=Path, metavar="FILE", help="a file in place of the download")
    parser.add_argument("--tokenizer", choices=TOKENIZERS, help="default: see the list of datasets")
    parser.add_argument(
        "--vocab-size", "--vocab_size", type=int, metavar="N", help="of a trained tokenizer (default 2048)"
    )
    parser.add_argument(
        "--gpt2-bpe", "--gpt2_bpe", type=Path, metavar="DIR", help="vocab.bpe and encoder.json ($GPT2_BPE_DIR)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the dataset folder (default: DATA_ROOT/NAME)")
    parser.add_argument("--data-root", "--data_root", type=Path, metavar="DIR", help="default: $DATA_ROOT, else ./data")
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one per core)")
    parser.add_argument("--force", action="store_true", help="replace the dataset if it exists")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    if args.name not in (None, *RECIPES, *COMMANDS):
        parser.error(f"there is no dataset {args.name!r}, expected one of {', '.join([*RECIPES, *COMMANDS])}")
    if args.name in COMMANDS and not args.paths:
        parser.error(COMMANDS[args.name])
    return args


def run(args: argparse.Namespace) -> int:
    if args.name is None:
        list_datasets(args.data_root)
    elif args.name == "verify":
        for dataset in args.paths:
            info = open_dataset(dataset, args.data_root)
            info.verify()
            print(f"{info.path}: {sum(s.tokens for s in info.splits.values()):,} tokens are as recorded")
    elif args.name == "nanogpt":
        for folder in args.paths:
            show(describe_nanogpt(folder, args.gpt2_bpe))
    else:
        show(
            prepare(
                args.name,
                [*args.paths, *([args.text] if args.text else [])],
                tokenizer=args.tokenizer,
                vocab_size=args.vocab_size,
                gpt2_bpe=args.gpt2_bpe,
                out=args.out,
                root=args.data_root,
                force=args.force,
                workers=args.workers,
                quiet=args.quiet,
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

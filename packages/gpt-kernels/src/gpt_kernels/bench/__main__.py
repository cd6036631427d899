"""python -m gpt_kernels.bench: times the operations on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .case import Setting
from .measure import ceiling_of, measure
from .registry import OPS
from .report import describe, table, write_csv, write_plot

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m gpt_kernels.bench", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="OP", help=f"any of {', '.join(OPS)}; all unless given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="bf16 on CUDA, fp32 on a CPU unless given")
    parser.add_argument("--size", choices=("full", "small"), help="full on CUDA, small on a CPU unless given")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="on CUDA unless given; slow to start")
    parser.add_argument("--repeats", type=int, default=20, help="runs of each side, of which the median counts")
    parser.add_argument("--csv", type=Path, help="write all rows here")
    parser.add_argument("--plot", type=Path, help="write a picture here (needs matplotlib)")
    given = parser.parse_args(arguments)
    unknown = [op for op in given.ops if op not in OPS]
    if unknown or given.repeats < 1:
        parser.error(
            f"unknown op {unknown[0]!r}; choose of {', '.join(OPS)}" if unknown else "--repeats must be positive"
        )

    device = torch.device(given.device)
    cuda = device.type == "cuda"
    dtype = DTYPES[given.dtype or ("bf16" if cuda else "fp32")]
    setting = Setting(device, dtype, (given.size or ("full" if cuda else "small")) == "full")
    compile = cuda if given.compile is None else given.compile
    ceiling = ceiling_of(device)
    title = f"{describe(ceiling)}; torch {torch.__version__}, {str(dtype)[6:]}, {torch.get_num_threads()} CPU threads"
    print(title, flush=True)
    rows = []
    for op in given.ops or OPS:
        print(f"{op} ...", file=sys.stderr, flush=True)
        for case in OPS[op](setting):
            rows += measure(case, setting, ceiling, compile=compile, repeats=given.repeats)
    print(table(rows))
    if given.csv:
        write_csv(rows, given.csv)
        print(f"wrote {given.csv}")
    if given.plot:
        print(write_plot(rows, given.plot, title))


if __name__ == "__main__":
    main()

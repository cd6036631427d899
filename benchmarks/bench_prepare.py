"""What `prepare` costs beside its tokenizer, and beside nanoGPT's data/openwebtext/prepare.py.

    uv run benchmarks/bench_prepare.py [--nanogpt DIR] [--shakespeare FILE] [--gigabytes 10]

Every figure is of whole runs in processes of their own, in turns; wall seconds, and CPU seconds of a process and its
children beside them. GPT-2's vocabulary comes from the extra gpt2, or from $GPT2_BPE_DIR.

`vs_tiktoken`: MB/s of prepare (reading, hashing, splitting, encoding, writing, syncing) over MB/s of the call
`encode_ordinary_batch(texts, num_threads=cores)` alone: the median, over the rounds, of the ratio of wall seconds, on
Tiny Shakespeare x50 and on the stdlib corpus, the smaller of the two. Imports and the making of the vocabulary, a
constant, count on neither side.
`vs_nanogpt`: likewise, the peer's file over prepare, from the start of a process to its end, on the same parquet file
of web-like documents. Of the peer, `load_dataset` is replaced by one that reads that file, the vocabulary comes from
this machine, and 1100 documents go to validation, as its 1024 pieces of each split need them.
`rss_mb`: peak resident memory while preparing one jsonl file of --gigabytes (Linux: VmHWM, which unlike ru_maxrss
begins anew in a new process).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _bench import finish, median, table
from _web_documents import documents, paragraphs, write_lines

from gpt_data.preparation.sources import stdlib_source

CORES = len(os.sched_getaffinity(0))
OURS = """
import json, re, sys, time
from pathlib import Path
from gpt_data import prepare
from gpt_data.preparation import prepare as _, vocabulary
gpt2 = vocabulary.open_tokenizer("gpt2", None)
gpt2.encode_documents(["warm"])
vocabulary.open_tokenizer = lambda kind, folder: gpt2
started, cpu = time.perf_counter(), time.process_time()
info = prepare(sys.argv[1], sys.argv[3:], tokenizer="gpt2", out=sys.argv[2], quiet=True)
print(json.dumps({
    "wall": time.perf_counter() - started, "cpu": time.process_time() - cpu,
    "bytes": sum(s.bytes for s in info.splits.values()), "tokens": sum(s.tokens for s in info.splits.values()),
    "documents": sum(s.documents for s in info.splits.values()),
    "rss_mb": int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024,
}))
"""
RAW = """
import json, sys, time
from gpt_data.preparation import vocabulary
encoding = vocabulary.open_tokenizer("gpt2", None)._encoding
texts = json.load(open(sys.argv[1]))
encoding.encode_ordinary_batch(["warm"], num_threads=1)
started, cpu = time.perf_counter(), time.process_time()
ids = encoding.encode_ordinary_batch(texts, num_threads=int(sys.argv[2]))
print(json.dumps({
    "wall": time.perf_counter() - started, "cpu": time.process_time() - cpu,
    "bytes": sum(map(len, map(str.encode, texts))), "tokens": sum(map(len, ids)),
}))
"""
PEER = """
import os, runpy, sys
import datasets, tiktoken
from gpt_data.preparation import vocabulary
gpt2 = vocabulary.open_tokenizer("gpt2", None)._encoding
tiktoken.get_encoding = lambda name: gpt2
datasets.disable_progress_bars()
real, split = datasets.load_dataset, datasets.Dataset.train_test_split
datasets.load_dataset = lambda name, num_proc: real("parquet", data_files=sys.argv[2], cache_dir=sys.argv[3])
datasets.Dataset.train_test_split = lambda self, test_size, **how: split(self, test_size=1100, **how)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of nanoGPT")
    parser.add_argument("--shakespeare", type=Path, metavar="FILE", help="tinyshakespeare's input.txt (default: prose)")
    parser.add_argument("--megabytes", type=int, default=50, help="web documents for the comparison with nanoGPT")
    parser.add_argument("--gigabytes", type=float, default=0.5, help="of the jsonl file that memory is measured with")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = paragraphs()
        ratio = against_tiktoken(Path(folder), args.shakespeare, pool, args.repeats)
        peer = against_nanogpt(Path(folder), args.nanogpt, pool, args.megabytes, args.repeats) if args.nanogpt else None
        memory = memory_of(Path(folder), pool, int(args.gigabytes * 1e9))
    finish(vs_tiktoken=ratio, vs_nanogpt=peer, rss_mb=memory)


def against_tiktoken(folder: Path, shakespeare: Path | None, pool: list[str], repeats: int) -> float:
    play = shakespeare.read_text() if shakespeare else "\n".join(documents(1_115_394, pool))
    repeated = folder / "play.txt"
    repeated.write_text(play * 50)
    plays, library = folder / "plays.json", folder / "library.json"
    plays.write_text(json.dumps([play] * 50))
    library.write_text(json.dumps(stdlib_texts()))
    sides = {"Shakespeare x50": (plays, ["text", repeated]), "stdlib": (library, ["stdlib"])}
    rows, ratios = [], []
    for name, (texts, (recipe, *paths)) in sides.items():
        out = folder / "prepared"
        raw, ours = [], []
        for _ in range(repeats):
            raw.append(child(RAW, texts, CORES))
            ours.append(child(OURS, recipe, out, *paths))
            subprocess.run(["rm", "-r", out], check=True)
        for label, runs in (("tiktoken's batch", raw), ("prepare", ours)):
            wall, cpu = (median([run[key] for run in runs]) for key in ("wall", "cpu"))
            rows.append([name, label, runs[0]["bytes"] / 1e6, wall, cpu, runs[0]["bytes"] / 1e6 / wall, 1.0, 1.0])
        for column, key in ((-2, "wall"), (-1, "cpu")):
            rows[-1][column] = median([theirs[key] / mine[key] for theirs, mine in zip(raw, ours, strict=True)])
        ratios.append(rows[-1][-2])
    print(
        table(("corpus", f"{CORES} cores", "MB", "wall s", "CPU s", "MB/s", "ratio of wall", "of CPU"), rows),
        end="\n\n",
    )
    return min(ratios)


def stdlib_texts() -> list[str]:
    """The documents of the stdlib corpus, each once."""
    texts = (document.read(0, document.size()) for document in stdlib_source().documents)
    return [text.decode() for text in dict.fromkeys(texts) if text and b"\0" not in text]


def against_nanogpt(folder: Path, nanogpt: Path, pool: list[str], megabytes: int, repeats: int) -> float:
    import pyarrow
    import pyarrow.parquet

    pages = folder / "pages.parquet"
    texts = list(documents(megabytes * 1_000_000, pool))
    if len(texts) < 3000:
        raise SystemExit(f"{megabytes} MB are {len(texts)} documents, too few for the peer's 1024 pieces of each split")
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), pages, row_group_size=1000)
    peer = nanogpt / "data" / "openwebtext" / "prepare.py"
    if not peer.is_file():
        raise SystemExit(f"{peer} is not there; give the folder of a checkout of nanoGPT")
    walls: dict[str, list[float]] = {"nanoGPT": [], "prepare": []}
    cpus: dict[str, list[float]] = {"nanoGPT": [], "prepare": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=folder) as cold:
            copy = Path(cold) / "prepare.py"  # it writes its files beside itself
            copy.write_bytes(peer.read_bytes())
            for name, command in (
                ("nanoGPT", [PEER, copy, pages, Path(cold) / "cache"]),
                ("prepare", [OURS, "text", Path(cold) / "out", pages]),
            ):
                wall, cpu = timed(*command)
                walls[name].append(wall)
                cpus[name].append(cpu)
    size = sum(map(len, texts)) / 1e6
    rows = [(name, len(texts), size, median(walls[name]), median(cpus[name])) for name in walls]
    print(table(("web documents", "rows", "MB", "wall s", "CPU s"), rows), end="\n\n")
    ratios = [theirs / ours for theirs, ours in zip(walls["nanoGPT"], walls["prepare"], strict=True)]
    return median(ratios)


def memory_of(folder: Path, pool: list[str], size: int) -> float:
    lines = folder / "pages.jsonl"
    written = write_lines(lines, size, pool)
    found = child(OURS, "text", folder / "memory", lines)
    rate = found["bytes"] / 1e6 / found["wall"]
    assert found["documents"] == written, f"{written} rows became {found['documents']} documents"
    row = (f"{lines.stat().st_size / 1e9:.2f} GB of jsonl", written, found["wall"], rate, found["rss_mb"])
    print(table(("input", "documents", "wall s", "MB/s", "peak MB"), [row]), end="\n\n")
    return found["rss_mb"]


def child(code: str, *arguments: object) -> dict[str, float]:
    """Run `code` in a process of its own; what it prints last."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def timed(code: str, *arguments: object) -> tuple[float, float]:
    """Wall and CPU seconds of a process and its children."""
    import resource
    import time

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    started, cpu = time.perf_counter(), used()
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.perf_counter() - started, used() - cpu


if __name__ == "__main__":
    main()

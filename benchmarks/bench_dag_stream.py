"""How fast expressions are made, and that text, tokens, tags and labels of every one agree.

    uv run benchmarks/bench_dag_stream.py [--examples 100000] [--gpt2] [--device cuda]

One thread, CPU time of the whole process. An example is made completely: plan, token ids, six tags per token, and its
text as a Python string.

`examples_per_cpu_second`: with exactly 6 operations; `..._uniform`: with 0 to 6, the default; `loader_...`: batches of
64 out of `gpt_dag.expressions`, without texts; `validation_...`: the same of the validation split, of which a hundred
candidates are drawn for each example. `seconds_8000`: one batch of 8,000 with 0 to 6 operations and texts.

`vs_reference`: times a plain Python reference with exactly 6 operations, one example after the other: it draws, takes
the value as a Fraction, hashes the canonical text for the split, writes and tokenizes; it makes no tags.

`text_equals_label`, `tags_equal_label`, `ids_equal_text`: shares of `--examples` examples, in equal parts of all styles
and of the legacy shape: the value that the independent reader finds in the text, or that is assembled from the tags,
is the label's as a Fraction; the tokenizer's ids of the text are the ids. `split_overlap`: expressions of 50,000
training examples that are among 2,000 of validation and test, or the other way round.

`gpt2_tags_equal_label` (--gpt2): the same of tags and ids in GPT-2's vocabulary.

On a GPU: examples per second of wall time, and whether its batches are the CPU's bit for bit.
"""

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from hashlib import blake2b
from random import Random

import torch
from _bench import alternate, finish, median, table

from gpt_dag import DivisionByZero, WordTokenizer, evaluate, expressions, fingerprint, parse, render
from gpt_dag.english import parse_english
from gpt_dag.predictor.decode import decode
from gpt_dag.stream import STYLES, Law, Sample, sample
from gpt_dag.stream.bpe import digit_tokenizer, in_bpe
from gpt_dag.wording import write

BLOCK = 2048
BLOCKS = 5  # of a timed turn
DEPTH = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000, help="whose text and label are compared")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gpt2", action="store_true", help="also compare in GPT-2's tokens (needs gpt-data[bpe,gpt2])")
    parser.add_argument("--device", help="also measure there, e.g. cuda")
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {**speed(args.rounds)}
    figures |= agreement(args.examples)
    figures["split_overlap"] = overlap()
    if args.gpt2:
        figures["gpt2_tags_equal_label"] = in_gpt2(args.examples)
    if args.device:
        figures |= on_device(args.device)
    finish(**figures)


# --- speed -------------------------------------------------------------------------------------------------------


def speed(rounds: int) -> dict[str, float]:
    loader = expressions(192, 64, prefetch=0, held_out=BLOCK)
    seeds = iter(range(10**9))
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        "examples_per_cpu_second": (BLOCKS * BLOCK, lambda: make(Law(min_ops=DEPTH), next(seeds))),
        "examples_per_cpu_second_uniform": (BLOCKS * BLOCK, lambda: make(Law(), next(seeds))),
        "loader_examples_per_cpu_second": (
            BLOCKS * BLOCK,
            lambda: [next(loader.train) for _ in range(BLOCKS * BLOCK // 64)],
        ),
        "validation_examples_per_cpu_second": (256, lambda: complete(sample(Law(), 256, next(seeds), split="val"))),
        "reference_examples_per_cpu_second": (256, lambda: by_hand(256, next(seeds))),
        "seconds_8000": (8000, lambda: complete(sample(Law(), 8000, next(seeds)))),
    }
    seconds = alternate({name: run for name, (_, run) in sides.items()}, rounds)
    figures = {name: count / median(seconds[name]) for name, (count, _) in sides.items()}
    figures["seconds_8000"] = median(seconds["seconds_8000"])
    figures["vs_reference"] = figures["examples_per_cpu_second"] / figures["reference_examples_per_cpu_second"]
    rows = [[name, count, median(seconds[name]), count / median(seconds[name])] for name, (count, _) in sides.items()]
    print(table(["one thread", "examples", "CPU seconds", "examples per CPU second"], rows), end="\n\n")
    return figures


def make(law: Law, seed: int) -> None:
    numbers = torch.arange(BLOCK)
    for block in range(BLOCKS):
        complete(sample(law, numbers + block * BLOCK, seed))


def complete(examples: Sample) -> None:
    """Plans are there already; the rest is made when asked for."""
    assert len(examples.texts()) == len(examples.layout.tags)


def by_hand(examples: int, seed: int) -> None:
    rng, tokenizer = Random(seed), WordTokenizer()
    for _ in range(examples):
        while True:
            expression = parse(draw(rng))
            try:
                value = abs(evaluate(expression))
            except DivisionByZero:
                continue
            bucket = int.from_bytes(blake2b(render(expression).encode(), digest_size=8).digest()) % 100
            if bucket < 98 and (value == 0 or Fraction(1, 10**9) <= value <= 10**12):
                break
        tokenizer.encode(write(expression, rng.choice(list(STYLES)), rng))


def draw(rng: Random) -> str:
    """An expression of 6 operations over numbers like the stream's, in symbols: a random split of the operators."""

    def part(operations: int) -> str:
        if not operations:
            digits, decimals = rng.randint(1, 4), rng.randint(0, 4)
            point = f".{rng.randrange(10**decimals):0{decimals}d}" if decimals else ""
            sign, percent = "-" * (rng.random() < 0.25), "%" * (rng.random() < 0.1)
            return f"{sign}{rng.randrange(10 ** (digits - 1), 10**digits)}{point}{percent}"
        left = rng.randrange(operations)
        return f"({part(left)}) {rng.choice('+-*/')} ({part(operations - 1 - left)})"

    return part(DEPTH)


# --- agreement ---------------------------------------------------------------------------------------------------


def agreement(examples: int) -> dict[str, float]:
    """Of every style and of the legacy shape."""
    laws = {style: Law(styles=(style,)) for style in STYLES} | {"legacy": Law(shape="right")}
    each = -(-examples // len(laws))
    found = {name: compare(law, each) for name, law in laws.items()}
    rows = [[name, each, *right, seconds] for name, (right, seconds) in found.items()]
    print(table(["style", "examples", "text = label", "tags = label", "ids = text", "CPU seconds"], rows), end="\n\n")
    totals = [sum(right[i] for right, _ in found.values()) for i in range(3)]
    text, tags, ids = (total / (each * len(laws)) for total in totals)
    return {"text_equals_label": text, "tags_equal_label": tags, "ids_equal_text": ids, "compared": each * len(laws)}


def compare(law: Law, examples: int) -> tuple[list[int], float]:
    """How many texts, tags and ids are right, and the CPU seconds that it took."""
    start, tokenizer = time.process_time(), WordTokenizer()
    right = [0, 0, 0]
    for first in range(0, examples, BLOCK):
        drawn = sample(law, torch.arange(first, min(first + BLOCK, examples)), seed=2025)
        layout, labels = drawn.layout, drawn.plans.fractions()
        assert None not in labels, "an example divides by zero"
        read = decode(layout.tags, law.max_digits)
        assembled = [None if bad else v for v, bad in zip(read.plans.fractions(), read.invalid.tolist(), strict=True)]
        ids = [row[:length] for row, length in zip(layout.ids.tolist(), layout.length.tolist(), strict=True)]
        for text, label, tagged, tokens in zip(drawn.texts(), labels, assembled, ids, strict=True):
            right[0] += evaluate(parse_english(text)) == label
            right[1] += tagged == label
            right[2] += tokenizer.encode(text) == tokens
    return right, time.process_time() - start


def in_gpt2(examples: int) -> float:
    """The share whose tags say the label, and whose ids are the text, in GPT-2's vocabulary with digits one by one."""
    law, tokenizer, right = Law(), digit_tokenizer(), 0
    for first in range(0, examples, BLOCK):
        drawn = sample(law, torch.arange(first, min(first + BLOCK, examples)), seed=2025)
        layout = in_bpe(drawn, tokenizer)
        read = decode(layout.tags, law.max_digits)
        told = zip(read.plans.fractions(), drawn.plans.fractions(), read.invalid.tolist(), strict=True)
        texts = zip(layout.ids.tolist(), layout.length.tolist(), drawn.texts(), strict=True)
        spelled = [tokenizer.decode(ids[:length]) == text for ids, length, text in texts]
        right += sum(tagged == label and not bad and s for (tagged, label, bad), s in zip(told, spelled, strict=True))
    return right / examples


def overlap() -> int:
    """Counted by the canonical text, which the splits know nothing of, and by the fingerprint."""
    law = Law(max_ops=2, max_digits=2, max_decimals=1)  # small enough that expressions come again
    drawn = {
        split: sample(law, rows, split=split).plans
        for split, rows in (("train", 50_000), ("val", 1000), ("test", 1000))
    }
    found = 0
    for known in (lambda p: p.expressions(), lambda p: fingerprint(p).tolist()):
        train, val, test = (set(map(str, known(drawn[split]))) for split in ("train", "val", "test"))
        found += len(train & val) + len(train & test) + len(val & test)
    return found


# --- another device ----------------------------------------------------------------------------------------------


def on_device(device: str) -> dict[str, object]:
    law, width = Law(), 192
    rates = []
    for seed in range(6):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        sample(law, 16_384, seed, width=width, device=device).lay_out(width)
        torch.cuda.synchronize(device)
        rates.append(16_384 / (time.perf_counter() - start))
    here, there = (sample(law, 4096, 1, width=width, device=d) for d in ("cpu", device))
    equal = all(
        torch.equal(getattr(here.lay_out(width), name), getattr(there.lay_out(width), name).cpu())
        for name in ("ids", "tags")
    )
    print(f"{device}: {median(rates[1:]):.0f} examples per second of wall time in batches of 16,384; equal: {equal}\n")
    return {"device_examples_per_second": median(rates[1:]), "device_equals_cpu": equal}


if __name__ == "__main__":
    main()

"""What mid-training teaches: a small base model learns to answer with a letter and to stop.

    uv run benchmarks/bench_midtrain.py [--items FILE.jsonl] [--context 128] [--seed 1337] [--out DIR] [--count N]
                                        [--base-steps N] [--epochs N] [--cold-only]

A base model learns the Python library's own text (`stdlib`), and is then mid-trained on multiple-choice questions as
conversations (chatml), with a new optimizer (`after`) and with the first one's state (`after-warm`). Questions:
--items, rows `{"query", "choices", "gold"}` of gpt-eval's bundles that fit into --context with their answer, or the
script's own: in which module of the Python library a function is. Every fifth question is held out (and one of the
others validates, as every dataset has to). The model is asked greedily before mid-training (`before`: it has rows for
the template's tokens, and no step was taken) and after it, on what it was trained on and on what it was not. --seed
draws the weights and the order of the base's data.

    stopped   share of answers that end with the template's end token within 16 tokens
    letter    share of answers that are the right letter and nothing else; a letter drawn at random is right one in four
    likely    share of questions whose right letter is the likeliest of those offered

Intervals are Wilson's, 95 %. CPU seconds are those of the steps. Each training is a process of its own with one thread;
what is in --out is used again.
"""

import argparse
import contextlib
import importlib
import inspect
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from _bench import finish, table

from gpt_core.checkpoint import find_checkpoint, load_model, read_meta
from gpt_core.generate import Sampling, generate
from gpt_data import load_tokenizer, prepare
from gpt_data.chat import add_special_tokens, answering, mmlu, render
from gpt_data.chat.tasks import LETTERS

ROOT = Path(__file__).parents[1]
MODULES = """
    math os re json random string shutil socket struct textwrap itertools statistics subprocess tempfile threading
    inspect logging csv glob heapq bisect calendar colorsys difflib fnmatch gettext gzip locale mimetypes operator
    platform pprint secrets signal stat tarfile tokenize traceback unittest uuid warnings weakref zipfile ast base64 dis
"""
HELD_OUT = 5
"""One question in so many is not trained on."""
ANSWER_TOKENS = 16
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, help="questions of one's own")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench_midtrain", help="where runs are kept")
    parser.add_argument("--context", type=int, default=128, help="tokens; a step has 1,024 whatever it is")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--cold-only", action="store_true", help="without the start with a warm optimizer")
    parser.add_argument("--count", type=int, default=120, help="questions")
    parser.add_argument("--base-steps", type=int, default=200, help="steps of pretraining, 1,024 tokens each")
    parser.add_argument("--epochs", type=float, default=40, help="passes over the conversations")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--general.threads=1", f"--out_dir={args.out}", "--logging.style=quiet", "--dtype=float32"]
    sizes = ["--n_layer=2", f"--context_length={args.context}", f"--batch_size={1024 // args.context}"]
    sizes += [f"--seed={args.seed}", "--eval_interval=0", "--eval_at_start=false"]
    train("base", "pretrain", [*common, *sizes, f"--max_steps={args.base_steps}", "--max_new_tokens=0"], args.out)
    tokenizer = args.out / "base/tokenizer"

    speech = add_special_tokens(load_tokenizer(tokenizer))
    rows = questions() if args.items is None else read_items(args.items)
    rows = [row for row in rows if len(render(mmlu(row), speech).ids) <= args.context][: args.count]
    learned = [row for number, row in enumerate(rows) if number % HELD_OUT]
    others = [row for number, row in enumerate(rows) if not number % HELD_OUT]
    talks = args.out / "talks.jsonl"
    talks.write_text("".join(json.dumps(mmlu(row)) + "\n" for row in learned), encoding="utf-8")
    prepare("chat", [talks], tokenizer=str(tokenizer), val_one_in=10**9, out=args.out / "talks", quiet=True)
    packed = "--data.module_kwargs.pack=true"  # as the published figures were measured
    to_chat = [f"--checkpoint={args.out / 'base'}", f"--data={args.out / 'talks'}", packed]
    train("before", "midtrain", [*to_chat, "--max_steps=0", "--no-evals"], args.out)
    sides = {"none": "after"} if args.cold_only else {"none": "after", "momenta": "after-warm"}
    for choice, name in sides.items():
        options = [f"--epochs={args.epochs}", f"--warm-start-optimizer={choice}", "--no-evals", "--save_every=0"]
        train(name, "midtrain", [*to_chat, *options], args.out)

    lines, figures = [], {}
    for name in ("before", *sides.values()):
        for which, asked in (("trained", learned), ("held out", others)):
            shares = ask(args.out / name, asked)
            lines.append([name, which, len(asked), *(with_interval(hits, len(asked)) for hits in shares.values())])
            figures |= {f"{name}_{which}_{key}".replace(" ", "_"): hits / len(asked) for key, hits in shares.items()}
    print(table(["model", "questions", "n", "stopped", "letter", "likely"], lines))
    seconds = {f"{name}_cpu_s": cpu_seconds(args.out / name) for name in ("base", *sides.values())}
    steps = {f"{name}_steps": read_meta(find_checkpoint(args.out / name))["step"] for name in ("base", "after")}
    finish(**figures, **seconds, **steps)


def train(name: str, app: str, arguments: Sequence[str], out: Path) -> None:
    """Run an app unless its run is there."""
    if (out / name / "checkpoints/latest").exists():
        return
    command = [sys.executable, str(ROOT / "apps" / app), f"--run_name={name}", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def questions() -> Iterator[Row]:
    """In which module of the Python library a function is; the others offered do not have it."""
    draw, modules = random.Random(0), MODULES.split()
    found: dict[str, list[str]] = {}
    for module in modules:
        with contextlib.suppress(ImportError):
            members = inspect.getmembers(importlib.import_module(module), inspect.isroutine)
            for name, function in members:
                if not name.startswith("_") and getattr(function, "__module__", None) == module and len(name) > 3:
                    found.setdefault(name, []).append(module)
    names = sorted(name for name, modules in found.items() if len(modules) == 1)
    draw.shuffle(names)
    for name in names:
        wrong = draw.sample([module for module in modules if module != found[name][0]], 3)
        choices = [*wrong, found[name][0]]
        draw.shuffle(choices)
        asked = f"Which module of the Python library has the function {name}?"
        yield {"question": asked, "choices": choices, "answer": choices.index(found[name][0])}


def read_items(path: Path) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        question = row["query"].removeprefix("Question: ").strip()
        yield {"question": question, "choices": row["choices"], "answer": row["gold"]}


@torch.inference_mode()
def ask(run: Path, rows: Sequence[Row]) -> dict[str, int]:
    """How many of the questions the newest checkpoint of a run answers as wanted."""
    model, tokenizer = load_model(find_checkpoint(run)), load_tokenizer(run / "tokenizer")
    speech = answering(tokenizer)
    stop = speech["end_ids"][0]
    hits = {"stopped": 0, "letter": 0, "likely": 0}
    for row in rows:
        wanted = LETTERS[row["answer"]]
        ids = speech["chat"](mmlu(row)["messages"][:1])
        (answer,) = generate(model, [ids], ANSWER_TOKENS, sampling=Sampling(temperature=0.0), stop_ids=[stop])
        ended, said = answer.stop_id == stop, tokenizer.decode(answer.ids)
        logits_V = model(torch.tensor([ids]), only_last=True)[0, -1]
        offered = [tokenizer.encode(letter)[0] for letter in LETTERS[: len(row["choices"])]]
        hits["stopped"] += ended
        hits["letter"] += ended and said == wanted
        hits["likely"] += int(logits_V[offered].argmax()) == row["answer"]
    return hits


def with_interval(hits: int, count: int) -> str:
    """A share with Wilson's interval of 95 %."""
    z = 1.96
    share, scale = hits / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    return f"{share:.2f} ({max(0.0, middle - half):.2f} to {min(1.0, middle + half):.2f})"


def cpu_seconds(run: Path) -> float:
    return read_meta(find_checkpoint(run))["cpu_seconds"]


if __name__ == "__main__":
    main()

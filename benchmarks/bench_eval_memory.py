"""Peak memory of scoring a batch at GPT-2's vocabulary: gpt-eval against float32 logits of the whole batch.

    uv run benchmarks/bench_eval_memory.py [--rows 16] [--tokens 256] [--span 8]

Each side runs in a process of its own and scores the same requests once: ROWS texts of TOKENS tokens, whose last SPAN
are the continuation, with a GPT-2 of 10M parameters. Measured is how far the process's resident memory rises above
what it was with the model loaded (a first, tiny call has started the libraries).

    gpt-eval       HuggingFaceModel.score, all rows in one batch
    materialised   model(ids).logits in float32, log_softmax over them, gather: what a plain scorer does

Figures: `peak_ratio` is our rise over the bytes of float32 logits (ROWS x TOKENS x 50257 x 4), which the plain scorer
cannot be under; `peak_ratio_measured` is our rise over the plain scorer's. `max_abs_diff` of a summed log-probability.
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from _bench import finish, table
from bench_eval import VOCAB, _gpt2_of_10m_parameters, _tokenizer

SIDES = ("gpt-eval", "materialised")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--span", type=int, default=8, help="scored tokens of each row")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args)))
        return
    results = {side: _in_a_process_of_its_own(side) for side in SIDES}
    logits = args.rows * args.tokens * VOCAB * 4
    rows = [[side, result["rise"] / 2**20, result["rise"] / logits] for side, result in results.items()]
    print(table(["scorer", "rise MiB", "of float32 logits"], [*rows, ["float32 logits", logits / 2**20, 1.0]]), "\n")
    ours, plain = (results[side] for side in SIDES)
    finish(
        peak_ratio=ours["rise"] / logits,
        peak_ratio_measured=ours["rise"] / plain["rise"],
        max_abs_diff=max(abs(a - b) for a, b in zip(ours["sums"], plain["sums"], strict=True)),
    )


def _in_a_process_of_its_own(side: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """{"rise": bytes, "sums": summed log-probabilities} of one side."""
    import torch

    from gpt_eval.models import HuggingFaceModel

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = _gpt2_of_10m_parameters()
    rng = random.Random(0)
    texts = [[rng.randrange(VOCAB) for _ in range(args.tokens + 1)] for _ in range(args.rows)]
    requests = [(text[: -args.span], text[-args.span :]) for text in texts]
    ours = HuggingFaceModel(model, _tokenizer(), batch_tokens=args.rows * args.tokens)

    def score(asked: list[tuple[list[int], list[int]]]) -> list[float]:
        if args.side == "gpt-eval":
            return [one.sum for one in ours.score(asked)]
        return _materialised(model, asked)

    score([(ctx[:8], cont[:2]) for ctx, cont in requests[:1]])
    before = _resident()
    watch = _Watch()
    sums = score(requests)
    return {"rise": watch.stop() - before, "sums": sums}


def _materialised(model: Any, requests: list[tuple[list[int], list[int]]]) -> list[float]:
    """The plain scorer: rows of equal length, all logits, all log-probabilities."""
    import torch

    with torch.inference_mode():
        ids_BT = torch.tensor([[*ctx, *cont[:-1]] for ctx, cont in requests])
        logprobs_BTV = model(input_ids=ids_BT, use_cache=False).logits.float().log_softmax(-1)
        targets_BT = torch.tensor([cont for _, cont in requests])
        span_BTV = logprobs_BTV[:, -targets_BT.shape[1] :]
        return span_BTV.gather(2, targets_BT[:, :, None]).sum((1, 2)).tolist()


def _resident() -> int:
    """Bytes of this process in memory now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no VmRSS; this benchmark needs Linux")


class _Watch:
    """The highest resident memory until `stop`, looked at every millisecond by a thread."""

    def __init__(self) -> None:
        self._peak, self._going = _resident(), True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while self._going:
            self._peak = max(self._peak, _resident())
            time.sleep(0.001)

    def stop(self) -> int:
        self._peak = max(self._peak, _resident())
        self._going = False
        self._thread.join()
        return self._peak


if __name__ == "__main__":
    main()

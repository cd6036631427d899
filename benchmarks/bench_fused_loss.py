"""A training step with the loss fused with the head, beside one that holds all logits.

    uv run benchmarks/bench_fused_loss.py [--repeats 3] [--steps 4]

Forward and backward of a GPT of 6 layers and width 384 on 4 x 256 tokens, one thread, eager float32. Each round starts
a fresh process per side, in turns. Time is the median CPU time of a step over all rounds; memory is the peak resident
set above what the model takes, gradients included (Linux). `time_ratio` and `memory_ratio`: fused over all logits with
50304 tokens. `auto_worst`: the worst time ratio among the vocabularies for which `training.fused_loss: auto` fuses.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from _bench import finish, median, table

VOCABULARIES = (65, 1024, 4096, 50304)
LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 6, 6, 384, 256, 4
SIDES = {"all logits": False, "fused": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per side and vocabulary")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of a process")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)  # in a process of its own: fused or not, vocabulary
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side[0] == "fused", int(args.side[1]), args.steps)))
        return
    rows, times, memory, auto = [], {}, {}, {}
    for vocabulary in VOCABULARIES:
        found: dict[str, list] = {side: [] for side in SIDES}
        for _ in range(args.repeats):
            for side, seen in found.items():
                seen.append(run(side, vocabulary, args.steps))
        seconds = {side: median([t for each in seen for t in each["seconds"]]) for side, seen in found.items()}
        peak = {side: median([each["peak"] for each in seen]) / 1e6 for side, seen in found.items()}
        times[vocabulary] = seconds["fused"] / seconds["all logits"]
        memory[vocabulary] = peak["fused"] / peak["all logits"]
        auto[vocabulary] = found["fused"][0]["auto"]
        figures = (*seconds.values(), times[vocabulary], *peak.values(), memory[vocabulary])
        rows.append((vocabulary, *figures, "fused" if auto[vocabulary] else "all logits"))
        print(
            f"{vocabulary}: time {times[vocabulary]:.3f}, memory {memory[vocabulary]:.3f}", file=sys.stderr, flush=True
        )
    header = ("vocabulary", "all logits, CPU s", "fused", "ratio", "all logits, peak MB", "fused", "ratio", "auto")
    print(table(header, rows))
    worst = max((times[vocabulary] for vocabulary in VOCABULARIES if auto[vocabulary]), default=1.0)
    finish(time_ratio=times[50304], memory_ratio=memory[50304], auto_worst=worst)


def run(side: str, vocabulary: int, steps: int) -> dict:
    command = [sys.executable, __file__, "--side", side, str(vocabulary), "--steps", str(steps)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(fused: bool, vocabulary: int, steps: int) -> dict:
    import torch  # not in the parent, whose memory a child would begin with

    from gpt_core.models import gpt
    from gpt_core.training import ModelWithLoss, autoregressive
    from gpt_core.training.fused_loss import choose

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, loss = gpt(vocabulary, CONTEXT, n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH), autoregressive()
    forward = ModelWithLoss(model, loss, fused=fused)
    ids, targets = torch.randint(vocabulary, (2, BATCH, CONTEXT))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what there is now
    before, seconds = status_bytes("VmRSS"), []
    for _ in range(1 + steps):
        started = time.process_time()
        forward(ids, targets).objective.backward()
        seconds.append(time.process_time() - started)
        forward.zero_grad(set_to_none=True)
    rows = BATCH * CONTEXT
    chosen = choose("auto", model, loss, rows=rows, dtype=torch.float32, device=torch.device("cpu"))
    return {"seconds": seconds[1:], "peak": status_bytes("VmHWM") - before, "auto": chosen.fused}


def status_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()

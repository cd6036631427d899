"""gpt_kernels on a CPU: each op, compiled, against the PyTorch expression one would write; memory of the chunked loss.

    uv run benchmarks/bench_kernels_cpu.py                 # all; some ten minutes on one core
    uv run benchmarks/bench_kernels_cpu.py cross_entropy   # ops whose name contains a word; "memory": that alone

CPU time of forward and backward, the sides in turns. `worst_ratio`: the largest, over the ops, of ours compiled over
the eager expression, written out for norms, rotary positions and attention, F.linear and F.cross_entropy for the rest.
The table also shows ours in eager mode and the expression compiled; torch's own norms and attention are sides of
`python -m gpt_kernels.bench --compile` (F.layer_norm, eager, is twice as fast as anything compiled).
`ce_memory_ratio`: peak memory of `linear_cross_entropy` over that of `F.cross_entropy(x @ Wᵀ, y)` at 4096 rows of 768,
50304 words, forward and backward with both gradients, each in its own process; what the inputs take is left out.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from _bench import alternate, finish, median, table
from torch import Tensor

import gpt_kernels as k

HEAD = (768, 50304)
MEMORY_ROWS = 4096


class Case(NamedTuple):
    """An op with its arguments: the first `leaves` tensors get gradients."""

    name: str
    ours: Callable[..., Tensor]
    naive: Callable[..., Tensor]
    tensors: tuple[Tensor, ...]
    leaves: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("word", nargs="?", default="", help="only ops whose name contains it")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory-of", choices=["ours", "naive"], help=argparse.SUPPRESS)  # in a process of its own
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory_of:
        print(peak_bytes(args.memory_of))
        return
    rows, ratios = [], {}
    for case in cases():
        if args.word in case.name:
            print(f"\r{case.name:40}", end="", file=sys.stderr, flush=True)  # some take a minute
            seconds = time_case(case, args.repeats)
            pairs = zip(seconds["ours, compiled"], seconds["naive"], strict=True)
            ratios[case.name] = median([ours / naive for ours, naive in pairs])  # each of one turn, under one load
            rows.append((case.name, *(1e3 * median(s) for s in seconds.values()), ratios[case.name]))
    print(file=sys.stderr)
    print(table(("forward + backward, CPU ms", *(seconds if rows else ()), "compiled / naive"), rows), end="\n\n")
    figures = {"worst_ratio": max(ratios.values())} if ratios else {}
    if args.word in "memory of linear_cross_entropy":
        memory = {side: memory_of(side) for side in ("ours", "naive")}
        print(table(("linear_cross_entropy", "peak MB"), [(side, size / 1e6) for side, size in memory.items()]))
        figures["ce_memory_ratio"] = memory["ours"] / memory["naive"]
    finish(**figures)


def time_case(case: Case, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each side, turn by turn."""

    def side(function: Callable[..., Tensor]) -> Callable[[], Any]:
        leaves = [t.detach().requires_grad_() for t in case.tensors[: case.leaves]]
        rest = case.tensors[case.leaves :]
        grad = torch.randn_like(function(*leaves, *rest).detach())
        return lambda: torch.autograd.grad(function(*leaves, *rest), leaves, grad)

    sides = {
        "naive": side(case.naive),
        "naive, compiled": side(torch.compile(case.naive, dynamic=False)),
        "ours": side(case.ours),
        "ours, compiled": side(torch.compile(case.ours, fullgraph=True, dynamic=False)),
    }
    return alternate(sides, repeats, warmup=2)


def cases() -> Iterator[Case]:
    """Sizes of a small GPT: 8 rows of 256 tokens, 384 channels, 6 heads of 64."""
    torch.manual_seed(0)
    B, T, D, H, K, V = 8, 256, 384, 6, 64, 8192
    x, weight, up, down = torch.randn(B, T, D), torch.randn(D), *torch.randn(2, 4 * D, D) / 20
    yield Case("rms_norm", k.rms_norm, naive_rms_norm, (x, weight), 2)
    if hasattr(k, "layer_norm"):
        yield Case("layer_norm", k.layer_norm, naive_layer_norm, (x, weight), 2)
    if hasattr(k, "relu2_mlp"):
        yield Case("relu2_mlp", k.relu2_mlp, lambda x, u, d: F.relu(x @ u.t()).square() @ d, (x, up, down), 3)
    if hasattr(k, "swiglu"):
        gate, value = torch.randn(2, B, T, 4 * D)
        yield Case("swiglu", k.swiglu, lambda g, v: F.silu(g) * v, (gate, value), 2)
    yield Case("linear", k.linear, F.linear, (x, up), 2)
    q, key, v = torch.randn(3, B, H, T, K)
    cos, sin = k.rotary_table(T, K)
    yield Case("apply_rotary", k.apply_rotary, naive_rotary, (q, cos, sin), 1)
    yield Case("attention", k.attention, naive_attention, (q, key, v), 3)
    packed = [t.transpose(0, 1).reshape(1, H, B * T, K) for t in (q, key, v)]
    ends = torch.arange(0, B * T + 1, 128, dtype=torch.int32)
    yield Case(
        "attention, packed",
        lambda q, key, v, ends: k.attention(q, key, v, cu_seqlens=ends),
        lambda q, key, v, ends: naive_attention(q, key, v, k.document_mask(ends, B * T)),
        (*packed, ends),
        3,
    )
    logits, targets = torch.randn(B, T, V), torch.randint(V, (B, T))
    yield Case("cross_entropy", k.cross_entropy, naive_loss, (logits, targets), 1)
    capped = lambda x, y: k.cross_entropy(x, y, softcap=15.0)
    yield Case(
        "cross_entropy, tanh cap", capped, lambda x, y: naive_loss(15 * torch.tanh(x / 15), y), (logits, targets), 1
    )
    several = lambda x, y: k.cross_entropy(x, y, softcap=k.SigmoidCap(), target_weights=[1.0, 0.5], reduction="sum")
    yield Case("cross_entropy, two targets", several, naive_two_targets, (logits, targets), 1)
    head, targets = torch.randn(V, D) / 20, torch.randint(V, (B, T))
    yield Case("linear_cross_entropy", k.linear_cross_entropy, naive_head, (x, head, targets), 2)
    capped_head = lambda x, w, y: k.linear_cross_entropy(x, w, y, softcap=15.0)
    naive_capped = lambda x, w, y: naive_loss(15 * torch.tanh(x @ w.t() / 15), y)
    yield Case("linear_cross_entropy, tanh cap", capped_head, naive_capped, (x, head, targets), 2)
    yield Case("linear_cross_entropy, 50304 x 768", k.linear_cross_entropy, naive_head, head_of_gpt2(1024), 2)


def head_of_gpt2(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    inputs, words = HEAD
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator)
    return x, torch.randn(words, inputs, generator=generator) / 28, torch.randint(words, (rows,), generator=generator)


def naive_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight


def naive_layer_norm(x: Tensor, weight: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * weight


def naive_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def naive_attention(q: Tensor, key: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    T = q.shape[-2]
    score = q @ key.mT / q.shape[-1] ** 0.5
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    return score.masked_fill(~(seen if mask is None else seen & mask), float("-inf")).softmax(-1) @ v


def naive_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten())


def naive_two_targets(logits: Tensor, targets: Tensor) -> Tensor:
    z = 23 * torch.sigmoid((logits + 5) / 7.5)
    first = F.cross_entropy(z.flatten(0, 1), targets.flatten(), reduction="sum")
    return first + 0.5 * F.cross_entropy(z[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), reduction="sum")


def naive_head(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return naive_loss(x @ weight.t(), targets)


def memory_of(side: str) -> int:
    command = [sys.executable, __file__, "--memory-of", side]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_bytes(side: str) -> int:
    """Bytes that forward and backward need at most, over what is there before them (Linux)."""
    x, weight, targets = head_of_gpt2(MEMORY_ROWS)
    x.requires_grad_()
    weight.requires_grad_()
    function = k.linear_cross_entropy if side == "ours" else naive_head
    function(x[:2], weight, targets[:2]).backward()  # libraries set up their own buffers
    x.grad = weight.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts at what there is now
    before = status_bytes("VmRSS")
    function(x, weight, targets).backward()
    return status_bytes("VmHWM") - before


def status_bytes(name: str) -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()

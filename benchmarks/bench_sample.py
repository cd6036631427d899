"""Sampling speed: our cached generation against nanoGPT's, same weights, same greedy tokens.

    uv run benchmarks/bench_sample.py --nanogpt PATH/TO/nanoGPT

GPT-2 shape (6 layers, 6 heads, 384 wide, context 1024, character vocabulary: 11 M parameters), 500 new tokens
from a one-token prompt, one thread, CPU time. nanoGPT has no cache: it encodes the whole text for every token.
The figure `ratio` is our tokens per CPU-second over nanoGPT's.
"""

import argparse
import contextlib
import io
from pathlib import Path

import torch
from _bench import alternate, finish, load_peer, median, table
from torch import nn

from gpt_core.generate import Sampling, generate
from gpt_core.models import GPT, GPTConfig

SHAPE = {"n_layer": 6, "n_head": 6, "n_embd": 384, "vocab_size": 65, "dropout": 0.0, "bias": False}
NAMES = {
    "transformer.wte.weight": "embed.weight",
    "transformer.wpe.weight": "position.weight",
    "transformer.ln_f": "norm",
    "transformer.h.": "blocks.",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn.qkv",
    "attn.c_proj": "attn.out",
    "mlp.c_fc": "ffn.up",
    "mlp.c_proj": "ffn.down",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="folder of a checkout of karpathy/nanoGPT")
    parser.add_argument("--new_tokens", type=int, default=500)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1337)

    theirs = build_theirs(args.nanogpt, args.context)
    ours = GPT(GPTConfig(context_length=args.context, **SHAPE)).eval()
    copy_weights(theirs, ours)
    prompt = [1]

    def run_theirs() -> list[int]:
        # top_k=1 is greedy up to ties, which random weights do not have
        return theirs.generate(torch.tensor([prompt]), args.new_tokens, top_k=1)[0, 1:].tolist()

    def run_ours() -> list[int]:
        return generate(ours, [prompt], args.new_tokens, sampling=Sampling(temperature=0))[0].ids

    expected, got = run_theirs(), run_ours()
    assert got == expected, f"greedy tokens differ from place {first_difference(got, expected)} on"
    seconds = alternate({"nanoGPT": run_theirs, "gpt-core": run_ours}, args.repeats, warmup=0)

    speed = {name: args.new_tokens / median(times) for name, times in seconds.items()}
    parameters = sum(p.numel() for p in ours.parameters())
    print(f"{parameters:,} parameters, {args.new_tokens} tokens ({len(set(got))} kinds), torch {torch.__version__}")
    rows = [
        (name, median(times), min(times), speed[name], speed[name] / speed["nanoGPT"])
        for name, times in seconds.items()
    ]
    print(table(("side", "median CPU s", "best CPU s", "tokens / CPU s", "ratio"), rows))
    finish(
        ratio=speed["gpt-core"] / speed["nanoGPT"],
        ours_tokens_per_cpu_second=speed["gpt-core"],
        theirs_tokens_per_cpu_second=speed["nanoGPT"],
        parameters=parameters,
        new_tokens=args.new_tokens,
        repeats=args.repeats,
        equal_greedy_output=True,
    )


def build_theirs(folder: Path, context: int) -> nn.Module:
    """nanoGPT's model. Its weights are made larger than its own start: that would repeat one token forever."""
    peer = load_peer(folder / "model.py", "nanogpt_model")
    with contextlib.redirect_stdout(io.StringIO()):
        model = peer.GPT(peer.GPTConfig(block_size=context, **SHAPE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """nanoGPT's parameters under our names. Both tie the head to the embedding."""
    weights = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in NAMES.items():
            name = name.replace(old, new)
        weights[name] = tensor
    del weights["lm_head.weight"]
    ours.load_state_dict(weights)


def first_difference(got: list[int], expected: list[int]) -> int:
    return next(i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)


if __name__ == "__main__":
    main()

"""Serving: many streams at once over HTTP, and what batching saves.

    uv run benchmarks/bench_serve.py [--streams 64 --seconds 60]

1. `apps/chat serve` with a random model of 10.7 M parameters (6 layers, 384 wide, one token per character, context 512)
   in a process of its own; `streams` clients each send a request, read its stream to the end and send the next, for
   `seconds`. The model has no token but characters and nothing that ends an answer: one that has not exactly as many
   characters as were asked for has lost some. `errors` counts those, refused requests and broken streams;
   `p95_first_token_ms` is measured by the clients from sending a request to its first token; on a machine that others
   use too, read `p95_first_token_cpu_ms` beside it: the CPU time that the server took meanwhile.
2. The same requests, 16, through one ContinuousBatch in this process: one at a time, and all together, in turn.
   `tokens_per_cpu_second_ratio` is together over one at a time, prompts included, medians of CPU time, one thread.

Expected before the first measurement: 64 streams without an error, first token p95 under 2 s on two cores; ratio ≥ 4.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import torch
from _bench import alternate, finish, median, table

from gpt_core.checkpoint import save_model
from gpt_core.generate import ContinuousBatch, Request, Sampling
from gpt_core.models import gpt
from gpt_data.tokenizers import CharTokenizer

sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
from chat_toys import Server, serving

CHARACTERS = "\n !\"#$%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SHAPE = {"n_layer": 6, "n_head": 6, "n_embd": 384, "context_length": 512, "position_encoding": "rope"}


@dataclass
class Seen:
    """What the clients saw."""

    server: Server
    first_token_ms: list[float] = field(default_factory=list)
    first_token_cpu_ms: list[float] = field(default_factory=list)
    """CPU time of the server meanwhile, in steps of 10 ms: the wait on a machine that does nothing else."""
    answers: int = 0
    tokens: int = 0
    errors: list[str] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    """The longest wait between two chunks of each answer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--new_tokens", type=int, default=96)
    parser.add_argument("--together", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the server's model")
    args = parser.parse_args()
    tokenizer = CharTokenizer(CHARACTERS)
    kwargs = {"vocab_size": tokenizer.vocab_size, **SHAPE}
    torch.manual_seed(1337)
    model = gpt(**kwargs).eval()
    parameters = sum(p.numel() for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "bench"
        checkpoint = run / "checkpoints/step_000001"
        checkpoint.mkdir(parents=True)
        recipe = {"module": "gpt_core.models.gpt", "module_kwargs": kwargs}
        save_model(checkpoint, model, {"step": 1, "tokens": 0, "model": recipe})
        tokenizer.save(run / "tokenizer")
        with serving(run, "--rows", args.streams, "--threads", args.threads, "--fixed") as server:
            asyncio.run(clients(server, 2, 3, args.new_tokens))  # the first steps allocate
            before = server.cpu_seconds
            start = time.monotonic()
            seen = asyncio.run(clients(server, args.streams, args.seconds, args.new_tokens))
            wall, cpu = time.monotonic() - start, server.cpu_seconds - before
            resident = server.resident_bytes
    p50, p95 = (quantile(seen.first_token_ms, q) for q in (0.5, 0.95))
    cpu50, cpu95 = (quantile(seen.first_token_cpu_ms, q) for q in (0.5, 0.95))
    print(f"{parameters:,} parameters, {args.streams} streams for {wall:.0f} s, torch {torch.__version__}")
    rows = [
        ("answers / tokens", f"{seen.answers} / {seen.tokens}"),
        ("errors", len(seen.errors)),
        ("first token, ms: median / p95 / worst", f"{p50:.0f} / {p95:.0f} / {max(seen.first_token_ms):.0f}"),
        (
            "longest gap in an answer, ms: median / worst",
            f"{quantile(seen.gaps_ms, 0.5):.0f} / {max(seen.gaps_ms):.0f}",
        ),
        ("the first token in the server's CPU ms: median / p95", f"{cpu50:.0f} / {cpu95:.0f}"),
        ("cores that the server got", f"{cpu / wall:.2f}"),
        ("tokens / s, tokens / CPU s of the server", f"{seen.tokens / wall:.0f}, {seen.tokens / cpu:.0f}"),
        ("resident memory, MB", f"{resident / 2**20:.0f}"),
    ]
    print(table(("served over HTTP", ""), rows))
    for error in seen.errors[:5]:
        print(f"error: {error}")

    torch.set_num_threads(1)
    requests = [request_of(random.Random(i), tokenizer.vocab_size, args.new_tokens) for i in range(args.together)]
    sides = {"one at a time": lambda: one_by_one(model, requests), "together": lambda: together(model, requests)}
    seconds = alternate(sides, args.repeats)
    tokens = args.together * args.new_tokens
    speed = {name: tokens / median(times) for name, times in seconds.items()}
    ratio = speed["together"] / speed["one at a time"]
    print(table((f"{args.together} requests", "median CPU s", "tokens / CPU s"),
                [(name, median(times), speed[name]) for name, times in seconds.items()]))  # fmt: skip
    finish(
        streams=args.streams,
        errors=len(seen.errors),
        p95_first_token_ms=p95,
        p95_first_token_cpu_ms=cpu95,
        tokens_per_cpu_second_ratio=ratio,
        answers=seen.answers,
        tokens=seen.tokens,
        wall_seconds=wall,
        server_cpu_seconds=cpu,
        parameters=parameters,
    )


async def clients(server: Server, streams: int, seconds: float, new_tokens: int) -> Seen:
    """So many clients, each asking again and again until the time is over; answers under way are read to their end."""
    seen, end = Seen(server), time.monotonic() + seconds
    limits = httpx.Limits(max_connections=streams)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        await asyncio.gather(*(keep_asking(client, i, end, new_tokens, seen) for i in range(streams)))
    return seen


async def keep_asking(client: httpx.AsyncClient, number: int, end: float, new_tokens: int, seen: Seen) -> None:
    draw = random.Random(number)
    while time.monotonic() < end:
        content = "".join(draw.choice(CHARACTERS) for _ in range(draw.randint(8, 60))).strip() or "?"
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": new_tokens, "temperature": 1}
        body |= {"stream": True, "stream_options": {"include_usage": True}, "seed": draw.getrandbits(30)}
        try:
            await read_answer(client, body, seen)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            seen.errors.append(f"{type(error).__name__}: {error}")


async def read_answer(client: httpx.AsyncClient, body: dict, seen: Seen) -> None:
    """Read one answer. ValueError if a token of it is missing."""
    sent = last = time.monotonic()
    cpu_then = seen.server.cpu_seconds
    characters, tokens, usage, done, gap = 0, 0, None, False, 0.0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise ValueError(f"status {response.status_code}: {(await response.aread())[:200]!r}")
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                done = True
                continue
            chunk = json.loads(line[6:])
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                if count := choice.get("tokens"):
                    now = time.monotonic()
                    if tokens == 0:
                        seen.first_token_ms.append(1000 * (now - sent))
                        seen.first_token_cpu_ms.append(1000 * (seen.server.cpu_seconds - cpu_then))
                    else:
                        gap = max(gap, now - last)
                    last, tokens = now, tokens + count
                characters += len(choice["delta"].get("content", ""))
    if not done or usage is None or {characters, tokens, usage["completion_tokens"]} != {body["max_tokens"]}:
        raise ValueError(f"{characters} characters, {tokens} tokens, usage {usage}, done {done}")
    seen.answers += 1
    seen.tokens += tokens
    seen.gaps_ms.append(1000 * gap)


def request_of(draw: random.Random, vocab_size: int, new_tokens: int) -> Request:
    prompt = [draw.randrange(len(CHARACTERS)) for _ in range(draw.randint(20, 60))]
    return Request(prompt, new_tokens, Sampling(top_k=50), seed=draw.getrandbits(30))


def one_by_one(model: torch.nn.Module, requests: list[Request]) -> None:
    for request in requests:
        run(ContinuousBatch(model, 1, prefix_bytes=0), [request])


def together(model: torch.nn.Module, requests: list[Request]) -> None:
    run(ContinuousBatch(model, len(requests), prefix_bytes=0), requests)


def run(batch: ContinuousBatch, requests: list[Request]) -> None:
    for request in requests:
        batch.add(request)
    tokens = 0
    while batch.busy:
        tokens += sum(event.token is not None for event in batch.step())
    assert tokens == sum(request.max_new_tokens for request in requests), "no request has a stop token"


def quantile(values: list[float], q: float) -> float:
    return statistics.quantiles(values, n=100)[round(100 * q) - 1] if len(values) > 1 else values[0]


if __name__ == "__main__":
    main()

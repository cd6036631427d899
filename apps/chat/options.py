"""The command line of both ways to chat."""

import argparse
from collections.abc import Sequence

from loading import DTYPES

SERVE = "serve"


def parse(argv: Sequence[str], doc: str | None) -> argparse.Namespace:
    """`serve` first: the server's options; else those of the terminal. ValueError for a value out of range."""
    serving = bool(argv) and argv[0] == SERVE
    parser = argparse.ArgumentParser(
        prog="apps/chat serve" if serving else "apps/chat",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(parser)
    _add_sampling(parser)
    (_add_server if serving else _add_terminal)(parser)
    options = parser.parse_args(argv[1:] if serving else argv)
    options.serve = serving
    if serving:
        _check(options)
    return options


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "model", nargs="?", default="out", help="run, folder of runs (the newest), checkpoint or ckpt.pt (default: out)"
    )
    add("--checkpoint", "-c", default="latest", help="latest, best, or a step such as 500 (default: latest)")
    add("--template", help="chatml, roles, or raw: no template (default: as the checkpoint says)")
    add("--tokenizer", help="for models without their own: gpt2, byte, a tokenizer folder or nanoGPT's meta.pkl")
    add("--trust", action="append", default=[], metavar="PACKAGE", help="call this package's model factory; repeatable")
    add("--dtype", choices=DTYPES, help="default: as the weights are")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--temperature", type=float, default=0.9, help="0 = always the likeliest token (default: 0.9)")
    add("--top_k", type=int, default=200, help="choose among the k likeliest, 0 = all (default: 200)")
    add("--max_new_tokens", type=int, default=256, help="length of an answer at most (default: 256)")


def _add_terminal(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--prompt", help="answer this and end")
    add("--system", help="a message of the system before the conversation")
    add("--seed", type=int, help="same seed, same answers (default: another one every time)")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")


def _add_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: open to the network (default: 127.0.0.1)")
    add("--port", type=int, default=8003, help="0: any free one (default: 8003)")
    add("--allow_host", action="append", default=[], metavar="NAME", help="a name that clients use for it; repeatable")
    add("--root", help="folder of runs that the page may load (default: the model's, or its runs' folder)")
    add("--fixed", action="store_true", help="clients may not change the model")
    add(
        "--devices",
        default="auto",
        help="one replica on each, such as cuda:0,cuda:1 or cpu (default: every GPU, else cpu)",
    )
    add("--rows", type=int, default=64, help="answers at a time on each replica (default: 64)")
    add("--prefix_mb", type=int, default=256, help="memory for the turns of conversations, per replica (default: 256)")
    add("--busy_timeout", type=float, default=30, help="seconds that a request waits for its turn (default: 30)")
    add("--queue", type=int, default=256, help="requests that may wait (default: 256)")
    add("--threads", type=int, help="of the model on a CPU (default: torch's)")


def _check(options: argparse.Namespace) -> None:
    limits = {"rows": (1, 4096), "port": (0, 65535), "prefix_mb": (0, 2**20), "queue": (0, 2**16), "top_k": (0, 200)}
    limits |= {"busy_timeout": (0, 3600), "temperature": (0, 2), "max_new_tokens": (1, 4096), "threads": (1, 1024)}
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name} must lie in [{low}, {high}], got {value}")

"""Continue a text with a trained model.

uv run apps/sample --prompt "def "                     the newest run below out/
uv run apps/sample out/my-run --checkpoint best --num_samples 3
uv run apps/sample nanogpt/out/ckpt.pt --tokenizer nanogpt/data/shakespeare_char/meta.pkl
uv run apps/sample hf:gpt2 --prompt FILE:start.txt
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import gpt_data
from gpt_core.distributed import distributed
from gpt_core.generate import Generator
from gpt_data.preparation import nanogpt_tokenizer
from gpt_data.tokenizers import ByteTokenizer, Tokenizer, gpt2_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RULE = "-" * 80


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    generator = load(options)
    prompts = [read_prompt(prompt) for prompt in options.prompt or ["\n"]]
    start, tokens = time.perf_counter(), 0
    texts = [prompt for prompt in prompts for _ in range(options.num_samples)]
    live = len(texts) == 1  # several samples grow together: shown when they are done
    pieces = generator.stream(
        prompts,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_k=options.top_k or None,
        top_p=options.top_p,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        stop=options.stop,
        num_samples=options.num_samples,
        overflow=options.overflow,
    )
    if live:  # not before: what is wrong with the prompt or the settings has been said by now
        print(texts[0], end="", flush=True)
    for piece in pieces:
        tokens += piece.tokens
        texts[piece.row] += piece.text
        if live:
            print(piece.text, end="", flush=True)
    seconds = time.perf_counter() - start
    print("" if live else f"\n{RULE}\n".join(texts))
    device = next(generator.model.parameters()).device
    say(f"{tokens} tokens in {seconds:.2f} s: {tokens / seconds:.0f} tokens/s on {device}, seed {options.seed}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="apps/sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", nargs="?", default="out", help="run, folder of runs, checkpoint, ckpt.pt or hf:NAME (default: out)")
    add("--checkpoint", default="latest", help="latest, best, or a step such as 500 (default: latest)")
    add("--tokenizer", help="for models without their own: gpt2, byte, a tokenizer folder or nanoGPT's meta.pkl")
    add(
        "--prompt",
        action="append",
        help="text to continue, or FILE:PATH; repeatable (default: newline)",
    )
    add("--num_samples", type=int, default=1, help="samples per prompt (default: 1, shown as it grows)")
    add("--max_new_tokens", type=int, default=200, help="length of each sample (default: 200)")
    add("--temperature", type=float, default=0.8, help="0 = always the likeliest token (default: 0.8)")
    add("--top_k", type=int, default=200, help="choose among the k likeliest, 0 = all (default: 200)")
    add("--top_p", type=float, help="choose among the likeliest that reach p together (default: all)")
    add("--repetition_penalty", type=float, default=1.0, help="over 1: fewer repeats (default: 1 = off)")
    add("--stop", action="append", default=[], help="text that ends a sample; repeatable")
    add("--seed", type=int, default=1337, help="same seed, same samples (default: 1337)")
    add("--overflow", choices=["crop", "stop", "slide"], default="crop", help="past the context: docs/generation.md")
    add("--trust", action="append", default=[], metavar="PACKAGE", help="call this package's model factory; repeatable")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    add("--dtype", choices=DTYPES, help="default: as the weights are")
    return parser.parse_args(argv)


def load(options: argparse.Namespace) -> Generator:
    """The model that the command line names, with its tokenizer."""
    with distributed(options.device) as process:
        settings: dict[str, Any] = {"device": process.device, "dtype": DTYPES.get(options.dtype), "notify": note}
    if options.model.startswith("hf:"):
        from gpt_core.models.convert import from_hf_gpt2

        return Generator(from_hf_gpt2(options.model[3:]), find_tokenizer(options.tokenizer or "gpt2"), **settings)
    if options.model.endswith(".pt"):
        from gpt_core.models.convert import from_nanogpt

        model = from_nanogpt(options.model)
        if options.tokenizer is None and model.config.vocab_size < 50257:
            raise ValueError(f"{options.model} is not a GPT-2 vocabulary: give --tokenizer PATH/TO/meta.pkl")
        return Generator(model, find_tokenizer(options.tokenizer or "gpt2"), **settings)
    own = options.tokenizer
    open_tokenizer = gpt_data.load_tokenizer if own is None else lambda folder: find_tokenizer(own)
    settings |= {"load_tokenizer": open_tokenizer, "trusted": options.trust}
    return Generator.from_run(options.model, options.checkpoint, **settings)


def find_tokenizer(name: str) -> Tokenizer:
    """gpt2, byte, a folder that a tokenizer was saved in, or the meta.pkl of a nanoGPT dataset."""
    if name == "gpt2":
        return gpt2_tokenizer()
    if name == "byte":
        return ByteTokenizer()
    if not name.endswith(".pkl"):
        return gpt_data.load_tokenizer(name)
    return nanogpt_tokenizer(name)


def read_prompt(prompt: str) -> str:
    return Path(prompt[5:]).read_text(encoding="utf-8") if prompt.startswith("FILE:") else prompt


def note(message: str) -> None:
    """Something that came up while the sample is being printed: on a line of its own."""
    say(f"\n{message}")


def say(message: str) -> None:
    """To stderr: stdout holds only the samples."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")

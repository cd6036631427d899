"""The command line of apps/evaluate."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from gpt_eval.suites.select import own_protocol
from gpt_eval.task import ProtocolName

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    target: str
    checkpoint: str
    suite: str
    bundle: Path
    protocol: ProtocolName
    limit: int | None
    output: Path | None
    no_resume: bool
    no_plot: bool
    quiet: bool
    tokenizer: str | None
    trust: list[str]
    device: str
    dtype: str | None
    batch_tokens: int | None
    model: str | None
    key_env: str | None
    max_length: int | None
    seed: int
    allow_code_execution: bool
    judge_url: str | None
    judge_model: str | None
    judge_key_env: str | None
    judge_cache: Path | None
    allow_self_judge: bool


def parse(argv: Sequence[str], description: str) -> Options:
    parser = argparse.ArgumentParser(
        prog="apps/evaluate", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", metavar="MODEL", help="run, folder of runs, checkpoint, ckpt.pt, hf:DIR or http://HOST/v1")
    add("--suite", default="gauntlet", help="gauntlet, core, chatcore, ... or TASK,TASK (default: gauntlet)")
    add("--bundle", type=Path, required=True, metavar="DIR", help="folder with the benchmarks' JSONL files")
    add(
        "--protocol",
        choices=["foundry", "core", "harness"],
        help="whose conventions; not comparable with each other (default: core for the suite core, else foundry)",
    )
    add("--limit", type=positive, metavar="N", help="only the first N rows of each task: a partial result")
    add("--output", type=Path, metavar="DIR", help="default: out/evaluate/MODEL/SUITE-PROTOCOL")
    add("--no-resume", action="store_true", help="begin anew where DIR holds an interrupted or finished evaluation")
    add("--no-plot", action="store_true", help="draw no pictures")
    add("--quiet", action="store_true", help="show no progress")
    add("--seed", type=int, default=0, help="of sampled answers (default: 0)")
    group = parser.add_argument_group("a model on this machine")
    group.add_argument("--checkpoint", default="latest", help="latest, best, or a step such as 500 (default: latest)")
    group.add_argument("--tokenizer", help="for models without their own: gpt2, byte, a folder or nanoGPT's meta.pkl")
    group.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help="call its model factory")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    group.add_argument("--dtype", choices=DTYPES, help="default: as the weights are")
    group.add_argument("--batch-tokens", type=positive, metavar="N", help="tokens per forward pass")
    group = parser.add_argument_group("an endpoint")
    group.add_argument("--model", metavar="NAME", help="the endpoint's model")
    group.add_argument("--key-env", metavar="VARIABLE", help="environment variable that holds the key")
    group.add_argument("--max-length", type=positive, metavar="N", help="what the model takes: characters")
    group = parser.add_argument_group("benchmarks with programs or a judge")
    group.add_argument("--allow-code-execution", action="store_true", help="run programs that the model writes")
    group.add_argument("--judge-url", metavar="URL", help="endpoint with OpenAI's API that judges answers")
    group.add_argument("--judge-model", metavar="NAME")
    group.add_argument("--judge-key-env", metavar="VARIABLE", help="environment variable that holds the judge's key")
    group.add_argument("--judge-cache", type=Path, metavar="FILE", help="remember the judge's replies, and reuse them")
    group.add_argument("--allow-self-judge", action="store_true", help="let the model judge itself; results say so")
    options = vars(parser.parse_args(argv))
    if options["protocol"] is None:
        options["protocol"] = own_protocol(options["suite"])
    if (options["judge_url"] is None) != (options["judge_model"] is None):
        parser.error("--judge-url and --judge-model belong together")
    assert options.keys() == {field.name for field in fields(Options)}
    return Options(**options)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)

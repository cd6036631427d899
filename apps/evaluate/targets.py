"""What MODEL on the command line means: a model with its tokenizer, wrapped for the evaluator."""

from pathlib import Path
from typing import Any, cast

import torch
from command_line import Options

import gpt_data
from gpt_core.generate import Generator
from gpt_core.generate.generator import locate
from gpt_data.chat import answering
from gpt_data.preparation import nanogpt_tokenizer
from gpt_data.tokenizers import ByteTokenizer, Tokenizer, gpt2_tokenizer
from gpt_eval.chat.calculator import calculate
from gpt_eval.model import LanguageModel


def load(options: Options, device: torch.device) -> LanguageModel:
    """Raises ValueError (CheckpointError, EvaluationError) for what cannot be loaded."""
    target = options.target
    refuse_strangers(options)
    if target.startswith("hf:"):
        return load_transformers(target[3:], options, device)
    if target.startswith(("http:", "https:")):
        return load_endpoint(target, options)
    return load_checkpoint(options, device)


MEANT_FOR = {
    "checkpoint": {"a run"},
    "trust": {"a run"},
    "tokenizer": {"a run", "nanoGPT's ckpt.pt", "a model of transformers"},
    "dtype": {"a run", "nanoGPT's ckpt.pt", "a model of transformers"},
    "batch_tokens": {"a run", "nanoGPT's ckpt.pt", "a model of transformers"},
    "max_length": {"a model of transformers", "an endpoint"},
    "model": {"an endpoint"},
    "key_env": {"an endpoint"},
}
"""Option -> the kinds of MODEL that it changes."""


def refuse_strangers(options: Options) -> None:
    """Raises ValueError for an option that would be ignored for this kind of model."""
    kind = _kind(options.target)
    for name, kinds in MEANT_FOR.items():
        if kind not in kinds and getattr(options, name) not in (None, [], "latest"):
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{options.target}: {option} means nothing to {kind}; it is for {', '.join(sorted(kinds))}"
            )


def _kind(target: str) -> str:
    if target.startswith("hf:"):
        return "a model of transformers"
    if target.startswith(("http:", "https:")):
        return "an endpoint"
    return "nanoGPT's ckpt.pt" if target.endswith(".pt") else "a run"


def load_transformers(folder: str, options: Options, device: torch.device) -> LanguageModel:
    from gpt_eval.models import HuggingFaceModel

    return HuggingFaceModel(
        folder,
        options.tokenizer,
        device=device,
        dtype=options.dtype,
        batch_tokens=options.batch_tokens,
        max_length=options.max_length,
    )


def load_endpoint(url: str, options: Options) -> LanguageModel:
    from gpt_eval.models import HTTPModel

    if not options.model:
        raise ValueError(f"{url}: which of the endpoint's models? give --model NAME")
    url = url.removeprefix("http:") if url.startswith("http:http") else url
    if options.max_length is None:
        return HTTPModel(url, options.model, key_env=options.key_env)
    return HTTPModel(url, options.model, key_env=options.key_env, max_length=options.max_length)


def load_checkpoint(options: Options, device: torch.device) -> LanguageModel:
    """A run of ours, or nanoGPT's ckpt.pt, as apps/sample finds them."""
    from gpt_eval.models import GPTModel

    own, dtype = options.tokenizer, None if options.dtype is None else getattr(torch, options.dtype)
    if options.target.endswith(".pt"):
        from gpt_core.models.convert import from_nanogpt

        model = from_nanogpt(options.target)
        if own is None and model.config.vocab_size < 50257:
            raise ValueError(f"{options.target} is not a GPT-2 vocabulary: give --tokenizer PATH/TO/meta.pkl")
        generator = Generator(model, find_tokenizer(own or "gpt2"), device=device, dtype=dtype)
        name = Path(options.target).resolve().parent.name
    else:
        run, folder = locate(options.target, options.checkpoint)
        name = f"{run.resolve().name}/{folder.name}"
        open_tokenizer = gpt_data.load_tokenizer if own is None else lambda folder: find_tokenizer(own)
        generator = Generator.from_run(
            options.target,
            options.checkpoint,
            load_tokenizer=open_tokenizer,
            device=device,
            dtype=dtype,
            trusted=options.trust,
        )
    speech = answering(cast(Tokenizer, generator.tokenizer), calculate)
    return GPTModel(generator.model, generator.tokenizer, name=name, batch_tokens=options.batch_tokens, **speech)


def find_tokenizer(name: str) -> Tokenizer:
    """gpt2, byte, a folder that a tokenizer was saved in, or the meta.pkl of a nanoGPT dataset."""
    if name == "gpt2":
        return gpt2_tokenizer()
    if name == "byte":
        return ByteTokenizer()
    return nanogpt_tokenizer(name) if name.endswith(".pkl") else gpt_data.load_tokenizer(name)


def load_judge(options: Options) -> Any:
    """The judge that the command line names; None without one."""
    if options.judge_url is None or options.judge_model is None:
        return None
    from gpt_eval.judge import HTTPJudge, ReplayJudge

    judge = HTTPJudge(options.judge_url, options.judge_model, key_env=options.judge_key_env)
    return judge if options.judge_cache is None else ReplayJudge(options.judge_cache, judge)

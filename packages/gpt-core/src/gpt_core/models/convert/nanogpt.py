"""nanoGPT checkpoints (`ckpt.pt`) as our GPT."""

import pickle
from pathlib import Path
from typing import Any

import torch

from ..config import GPTConfig
from ..gpt import GPT
from .names import gpt2_name
from .weights import empty_gpt, fill, strip_prefixes

_MODEL_ARGS = {
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "vocab_size": "vocab_size",
    "block_size": "context_length",
}


def from_nanogpt(path: str | Path, *, dropout: float | None = None) -> GPT:
    """The model of a nanoGPT `ckpt.pt`, on the CPU. dropout: None keeps what the checkpoint says.

    Read with weights_only=True: nothing in the file is executed. Prefixes of torch.compile and DDP are
    stripped. ValueError for a file that is not such a checkpoint, or that names code to run.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a nanoGPT checkpoint, or damaged: {reason}") from error
    if not isinstance(checkpoint, dict) or not {"model", "model_args"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a nanoGPT checkpoint: it has no 'model' and 'model_args'")
    model = empty_gpt(nanogpt_config(checkpoint["model_args"], dropout=dropout))
    theirs = strip_prefixes(checkpoint["model"])
    state = {name: theirs[gpt2_name(name)] for name in model.state_dict() if gpt2_name(name) in theirs}
    fill(model, state, source=str(path))
    return model


def nanogpt_config(model_args: dict[str, Any], *, dropout: float | None = None) -> GPTConfig:
    """GPTConfig of nanoGPT's model_args: pre-norm GPT-2 with exact GELU; its bias switch covers the norms."""
    missing = sorted(_MODEL_ARGS.keys() - model_args.keys())
    if missing:
        raise ValueError(f"model_args of the nanoGPT checkpoint lack {missing}, got {sorted(model_args)}")
    bias = bool(model_args.get("bias", True))
    return GPTConfig.from_preset(
        "gpt2_pre",
        **{ours: model_args[theirs] for theirs, ours in _MODEL_ARGS.items()},
        bias=bias,
        normalization="layernorm" if bias else "layernorm_nobias",
        dropout=model_args.get("dropout", 0.0) if dropout is None else dropout,
    )

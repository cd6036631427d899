"""One door to every kind of pretrained weights."""

import json
from pathlib import Path

from gpt_core.checkpoint import load_model

from ..gpt import GPT
from .hf_gpt2 import from_hf_gpt2
from .hf_llama import from_hf_llama
from .hub import require_transformers
from .nanogpt import from_nanogpt
from .surgery import with_dropout
from .weights import load_gpt

_READERS = {"gpt2": from_hf_gpt2, "llama": from_hf_llama}


def load_pretrained(source: str | Path, **dropout: float | None) -> GPT:
    """The model that source names, on the CPU.

    source: a nanoGPT `ckpt.pt`; a `.safetensors` file of `save_weights`; a checkpoint folder of a training
    run; a Hugging Face folder or a name on the Hub (gpt2, gpt2-medium, gpt2-large, gpt2-xl, or any GPT-2 or
    Llama).
    dropout: rates to set (dropout, attention_dropout, …); without them a nanoGPT checkpoint and a safetensors
    file keep theirs, and Hugging Face models have none.
    Raises FileNotFoundError for a file that is not there, ValueError for what cannot be read.
    """
    path = Path(source)
    if path.suffix == ".pt":
        model = from_nanogpt(path)
    elif path.suffix == ".safetensors":
        model = load_gpt(path)
    elif (path / "meta.json").is_file():
        model = load_model(path)
        if not isinstance(model, GPT):
            raise ValueError(f"{path} is a {type(model).__name__}, expected a GPT")
    else:
        model = _READERS[_model_type(source)](source)
    return with_dropout(model, **dropout) if dropout else model


def _model_type(source: str | Path) -> str:
    """gpt2 or llama, from the config.json of a Hugging Face folder or repository."""
    folder = Path(source)
    if str(source) in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
        return "gpt2"
    if folder.is_dir():
        config = folder / "config.json"
        if not config.is_file():
            raise ValueError(f"{folder} is no Hugging Face folder: it has no config.json")
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    else:
        try:
            kind = require_transformers().AutoConfig.from_pretrained(str(source)).model_type
        except OSError as error:
            raise ValueError(
                f"cannot load {str(source)!r}: neither a file or folder here nor reachable on the Hugging Face Hub"
            ) from error
    if kind not in _READERS:
        raise ValueError(f"{source} is a {kind!r} model; we read {' and '.join(_READERS)}")
    return kind

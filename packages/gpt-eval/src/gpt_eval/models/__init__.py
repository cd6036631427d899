"""Backends: what turns a model into a `gpt_eval.LanguageModel`. Each is imported when it is first asked for.

HuggingFaceModel    a model of transformers: an object or a folder          (extra `hf`)
GPTModel            a GPT of this repository, or any ids -> logits callable (needs torch; extra `hf` brings it)
HTTPModel           a server that speaks OpenAI's API                       (extra `http`)
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gpt import GPTModel as GPTModel
    from .http import HTTPModel as HTTPModel
    from .huggingface import HuggingFaceModel as HuggingFaceModel

__all__ = ["GPTModel", "HTTPModel", "HuggingFaceModel"]

_HOMES = {"GPTModel": ("gpt", "hf"), "HTTPModel": ("http", "http"), "HuggingFaceModel": ("huggingface", "hf")}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _HOMES[name]
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{name} needs {error.name}: pip install "gpt-eval[{extra}]"') from error

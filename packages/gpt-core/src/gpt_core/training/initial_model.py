"""The model that a run starts from: new, resumed, or with weights from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from gpt_core.checkpoint import CheckpointError, read_meta
from gpt_core.config import Factory
from gpt_core.models.convert import crop_context, load_pretrained

PRETRAINED = "gpt_core.models.gpt"


@dataclass(frozen=True)
class InitialModel:
    """A model, and how to build another like it (`meta["model"]` of a checkpoint)."""

    model: nn.Module
    description: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def build_model(
    factory: Factory, *, resume: Path | None, weights: str | Path | None, vocab_size: int, context_length: int
) -> InitialModel:
    """A new model, a resumed one (architecture from the checkpoint), or one that starts from other weights.

    Raises ValueError where the model does not know the data's `vocab_size` tokens or another architecture was asked
    for, `CheckpointError` where the checkpoint cannot be read.
    """
    if resume is not None:
        return _resumed_model(factory, resume)
    if weights is None:
        return _new_model(factory, vocab_size, context_length)
    return _pretrained_model(factory, weights, vocab_size, context_length)


def _new_model(factory: Factory, vocab_size: int, context_length: int) -> InitialModel:
    sizes = {"vocab_size": vocab_size, "context_length": context_length}
    model = factory.build(**sizes)
    if model.config.vocab_size < vocab_size:
        raise ValueError(
            f"the model has {model.config.vocab_size} token embeddings, but the data's tokenizer has {vocab_size} "
            f"tokens; "
            "raise model.module_kwargs.vocab_size or leave it out"
        )
    return InitialModel(model, {"module": factory.path, "module_kwargs": {**sizes, **factory.kwargs}})


def _resumed_model(factory: Factory, checkpoint: Path) -> InitialModel:
    """Architecture from the checkpoint; dropout, which is no part of it, from the configuration."""
    saved = read_meta(checkpoint)["model"]
    if saved["module"] != factory.path:
        raise CheckpointError(
            f"{checkpoint} is a model of {saved['module']}, the configuration asks for {factory.path}; "
            "resume with the configuration of the run (its config.yaml)"
        )
    kwargs = dict(saved["module_kwargs"])
    notes = []
    for key, value in factory.kwargs.items():
        if "dropout" in key:
            kwargs[key] = value
        elif kwargs.get(key) != value:
            notes.append(f"model.module_kwargs.{key} stays {kwargs.get(key)!r} as in the checkpoint, not {value!r}")
    return InitialModel(factory.target(**kwargs), {"module": factory.path, "module_kwargs": kwargs}, notes)


def _pretrained_model(factory: Factory, source: str | Path, vocab_size: int, context_length: int) -> InitialModel:
    """Weights and architecture from elsewhere; of the configured model only the dropout rates are used."""
    if factory.path != PRETRAINED:  # the run could not be resumed: its checkpoints and its configuration disagree
        raise ValueError(
            f"weights from elsewhere come as a model of {PRETRAINED}, the configuration asks for {factory.path}; "
            f"set model.module to {PRETRAINED}"
        )
    dropout = {key: value for key, value in factory.kwargs.items() if "dropout" in key}
    model = load_pretrained(source, **dropout).train()
    if model.config.vocab_size < vocab_size:
        raise ValueError(
            f"{source} knows {model.config.vocab_size} tokens, the data has {vocab_size}; prepare the data with the "
            "tokenizer of that model"
        )
    if context_length != model.config.context_length:
        model = crop_context(model, context_length)
    notes = [f"weights and architecture are those of {source}"]
    if model.config.vocab_size > vocab_size:
        notes.append(
            f"it knows {model.config.vocab_size} tokens, the data's tokenizer has {vocab_size}: right if the rest is "
            "padding, wrong if it was trained with another tokenizer"
        )
    return InitialModel(model, {"module": PRETRAINED, "module_kwargs": model.config.to_dict()}, notes)

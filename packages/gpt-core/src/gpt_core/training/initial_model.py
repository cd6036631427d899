"""The model that a run starts from: new, resumed, or with weights from elsewhere.

A factory may say more about its models than its signature does:

    factory.fixed = ("depth",)           arguments that a resumed run may not ask to change
    factory.from_gpt = function          (GPT, **kwargs) -> model: a GPT with these weights and parts of its own, which
                                         stay new; without it only `gpt_core.models.gpt` takes weights from elsewhere

A model whose arguments alone would not build another like it (they name a file) has `rebuild_kwargs`, which override
them in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from gpt_core.checkpoint import CheckpointError, read_meta
from gpt_core.config import Factory
from gpt_core.config.factory import signature_of
from gpt_core.models import GPT
from gpt_core.models.convert import crop_context, grow_vocabulary, load_pretrained

PRETRAINED = "gpt_core.models.gpt"


@dataclass(frozen=True)
class InitialModel:
    """A model, and how to build another like it (`meta["model"]` of a checkpoint)."""

    model: nn.Module
    description: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def build_model(
    factory: Factory,
    *,
    resume: Path | None,
    weights: str | Path | None,
    vocab_size: int,
    context_length: int,
    first_new_id: int | None = None,
) -> InitialModel:
    """A new model, a resumed one (architecture from the checkpoint), or one that starts from other weights.

    first_new_id: the first of the data's tokens that such weights have not been trained on; None: not known.
    Raises ValueError where the model does not know the data's `vocab_size` tokens or another architecture was asked
    for, `CheckpointError` where the checkpoint cannot be read.
    """
    if resume is not None:
        return _resumed_model(factory, resume)
    if weights is None:
        return _new_model(factory, vocab_size, context_length)
    return _pretrained_model(factory, weights, vocab_size, context_length, first_new_id)


def _new_model(factory: Factory, vocab_size: int, context_length: int) -> InitialModel:
    sizes = {"vocab_size": vocab_size, "context_length": context_length}
    model = factory.build(**sizes)
    if model.config.vocab_size < vocab_size:
        raise ValueError(
            f"the model has {model.config.vocab_size} token embeddings, but the data's tokenizer has {vocab_size} "
            f"tokens; "
            "raise model.module_kwargs.vocab_size or leave it out"
        )
    kwargs = {**sizes, **factory.kwargs, **getattr(model, "rebuild_kwargs", {})}
    return InitialModel(model, {"module": factory.path, "module_kwargs": kwargs})


def _resumed_model(factory: Factory, checkpoint: Path) -> InitialModel:
    """Architecture from the checkpoint; dropout, which is no part of it, from the configuration."""
    saved = read_meta(checkpoint)["model"]
    if saved["module"] != factory.path:
        raise CheckpointError(
            f"{checkpoint} is a model of {saved['module']}, the configuration asks for {factory.path}; "
            "resume with the configuration of the run (its config.yaml)"
        )
    kwargs = dict(saved["module_kwargs"])
    _check_fixed(factory, kwargs, checkpoint)
    notes = []
    for key, value in factory.kwargs.items():
        if "dropout" in key:
            kwargs[key] = value
        elif kwargs.get(key) != (list(value) if isinstance(value, tuple) else value):  # JSON has lists
            notes.append(f"model.module_kwargs.{key} stays {kwargs.get(key)!r} as in the checkpoint, not {value!r}")
    return InitialModel(factory.target(**kwargs), {"module": factory.path, "module_kwargs": kwargs}, notes)


def _check_fixed(factory: Factory, saved: dict[str, Any], checkpoint: Path) -> None:
    """CheckpointError that lists every fixed argument in which the configuration differs from the checkpoint."""
    parameters = signature_of(factory.target).parameters
    value = lambda kwargs, key: kwargs.get(key, parameters[key].default)
    wrong = [
        f"{key}: checkpoint {value(saved, key)!r}, configuration {factory.kwargs[key]!r}"
        for key in getattr(factory.target, "fixed", ())
        if key in factory.kwargs and factory.kwargs[key] != value(saved, key)
    ]
    if wrong:
        raise CheckpointError(
            f"{checkpoint} cannot be resumed with another architecture ({'; '.join(wrong)}); resume with the "
            "configuration of the run (its config.yaml), or start a new run from its weights with --init_from=PATH"
        )


def _factory_of(source: str | Path) -> str | None:
    """What built the model of a checkpoint folder; None for other weights."""
    return read_meta(source)["model"]["module"] if (Path(source) / "meta.json").is_file() else None


def _pretrained_model(
    factory: Factory, source: str | Path, vocab_size: int, context_length: int, first_new_id: int | None
) -> InitialModel:
    """Weights and architecture from elsewhere; of the configured model only the dropout rates are used, and the parts
    that it puts around a GPT."""
    around = getattr(factory.target, "from_gpt", None)
    module = factory.path if around is None else PRETRAINED  # what builds a model with the architecture of the weights
    is_plain = module == PRETRAINED
    if not is_plain and _factory_of(source) != module:  # checkpoints of this run could not say how to build it
        raise ValueError(
            f"weights from elsewhere come as a model of {PRETRAINED}, the configuration asks for {factory.path}; "
            f"set model.module to {PRETRAINED}"
        )
    dropout = {key: value for key, value in factory.kwargs.items() if "dropout" in key}
    model = load_pretrained(source, **(dropout if is_plain else {})).train()
    if around is None and is_plain and type(model) is not GPT:
        raise ValueError(f"{source} is a {type(model).__name__}, which {PRETRAINED} does not build; set model.module")
    notes = [f"weights and architecture are those of {source}"]
    known = model.config.vocab_size
    first_new = vocab_size if first_new_id is None else first_new_id
    if known < first_new:
        raise ValueError(
            f"{source} knows {known} tokens, the data has {vocab_size}; prepare the data with the tokenizer of that "
            "model"
        )
    if first_new < vocab_size:
        model, grown = grow_vocabulary(model, vocab_size, first_new)
        notes.append(grown)
    if context_length != model.config.context_length:
        model = crop_context(model, context_length)
    if known > vocab_size:
        notes.append(
            f"it knows {known} tokens, the data's tokenizer has {vocab_size}: right if the rest is "
            "padding, wrong if it was trained with another tokenizer"
        )
    description = {"module": module, "module_kwargs": model.config.to_dict()}
    if around is not None:
        own = {key: value for key, value in factory.kwargs.items() if key not in description["module_kwargs"]}
        own.pop("preset", None)  # the architecture is that of the weights
        model = around(model, **own)
        kwargs = {**description["module_kwargs"], **own, **getattr(model, "rebuild_kwargs", {})}
        description = {"module": factory.path, "module_kwargs": kwargs}
        notes += getattr(model, "notes", [])
    return InitialModel(model, description, notes)

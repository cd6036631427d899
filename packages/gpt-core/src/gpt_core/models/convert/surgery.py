"""Changes to a trained model that keep its function."""

import dataclasses
from typing import Any

from ..gpt import GPT
from .weights import empty_gpt, fill


def crop_context(model: GPT, context_length: int) -> GPT:
    """A copy with another context length.

    Learned positions are cut to the first ones (ValueError for a longer context: there is nothing to put
    there); rotary tables and models without positions take any length.
    """
    return _copy(model, context_length=context_length)


def with_dropout(model: GPT, **rates: float | None) -> GPT:
    """A copy with other dropout rates: dropout, attention_dropout, residual_dropout, ffn_dropout, embedding_dropout."""
    wrong = [name for name in rates if "dropout" not in name]
    if wrong:
        raise ValueError(f"only dropout rates can be changed here, got {', '.join(wrong)}")
    return _copy(model, **rates)


def _copy(model: GPT, **fields: Any) -> GPT:
    if type(model) is not GPT:
        raise ValueError(f"{', '.join(fields)} can only be changed in a plain GPT, got a {type(model).__name__}")
    config = dataclasses.replace(model.config, **fields)
    state = dict(model.state_dict())
    length, old_length = config.context_length, model.config.context_length
    if "position.weight" in state:
        if length > old_length:
            raise ValueError(f"learned positions cannot grow: got context_length {length}, the model has {old_length}")
        state["position.weight"] = state["position.weight"][:length]
    weight = model.embed.weight
    copied = empty_gpt(config).to(device=weight.device, dtype=weight.dtype)
    fill(copied, state, source="the model")
    return copied.train(model.training)

"""More tokens for a trained model, such as those of a chat template."""

import dataclasses
import re
from typing import TypeVar

import torch
from torch import Tensor

from ..gpt import GPT
from .weights import fill, without_random_init

TABLES = re.compile(r"(.*\.)?(embed|head|value_embeds\.\d+)\.weight")
"""Names of parameters with a row per token."""
NOISE = 0.01
"""Of new rows, in standard deviations of the known ones: enough to tell two new tokens apart."""


Model = TypeVar("Model", bound=GPT)


def grow_vocabulary(model: Model, vocab_size: int, first_new: int) -> tuple[Model, str]:
    """A copy that knows `vocab_size` tokens, those from `first_new` on for the first time; and what was done, in words.

    Rows of new tokens begin at the mean of the known ones, so that they are no surprise to the model nor it to them
    (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models"), and a little noise, the same for
    every call. Padding that the model has becomes rows of new tokens; a larger vocabulary stays as large as it is.
    Logits of known tokens, and what the model makes of them, do not change.
    ValueError for a model that is no GPT, and where `first_new` is more than it knows.
    """
    if not isinstance(model, GPT):
        raise ValueError(f"only a GPT can be given new tokens, got a {type(model).__name__}")
    old = model.config
    if not 0 < first_new <= min(old.vocab_size, vocab_size):
        raise ValueError(
            f"tokens from {first_new} on cannot be the new ones of {vocab_size}: the model knows {old.vocab_size}"
        )
    config = dataclasses.replace(old, vocab_size=max(old.vocab_size, vocab_size))
    added = config.padded_vocab_size - old.padded_vocab_size
    state = dict(model.state_dict())
    for name in state:
        if TABLES.fullmatch(name):
            state[name] = _with_new_rows(state[name], config.padded_vocab_size, first_new, vocab_size)
    with without_random_init():
        grown = type(model)(config)
    grown = grown.to(device=model.embed.weight.device, dtype=model.embed.weight.dtype)
    fill(grown, state, source="the model")
    reused = vocab_size - first_new - max(0, vocab_size - old.padded_vocab_size)
    rows = ", ".join(
        part for part in (f"{reused} rows that it had" if reused else "", f"{added} rows more" if added else "") if part
    )
    note = (
        f"the model gets {vocab_size - first_new} new tokens, ids {first_new} to {vocab_size - 1} ({rows}); each "
        f"begins at the mean of the {first_new} known ones"
    )
    return grown.train(model.training), note


def _with_new_rows(table_VD: Tensor, rows: int, first_new: int, vocab_size: int) -> Tensor:
    known = table_VD[:first_new].float()
    mean_D, std_D = known.mean(0), known.std(0, correction=0)
    noise = torch.randn(vocab_size - first_new, known.shape[1], generator=torch.Generator().manual_seed(0))
    grown = mean_D.to(table_VD.dtype).repeat(rows, 1)  # padding, too
    kept = min(rows, len(table_VD))
    grown[:kept] = table_VD[:kept]
    grown[first_new:vocab_size] = (mean_D + NOISE * std_D * noise.to(mean_D.device)).to(table_VD.dtype)
    return grown
